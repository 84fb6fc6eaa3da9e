#!/usr/bin/env python3
"""The rival function: Python, boto3, ONNX Runtime, and the Runtime API spoken directly, which is lighter than the
client library that AWS gives. MODEL_BUCKET and MODEL_KEY name the model; everything is made in the init phase."""

import http.client
import json
import os

import boto3
import numpy as np
import onnxruntime
from botocore.config import Config

TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}
NAMES = {np.dtype(t): name for name, t in TYPES.items()}


def load():
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    body = s3.get_object(Bucket=os.environ["MODEL_BUCKET"], Key=os.environ["MODEL_KEY"])["Body"].read()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])


def handle(session, event):
    document = json.loads(event["body"])
    feeds = {i["name"]: np.array(i["data"], TYPES[i["datatype"]]).reshape(i["shape"]) for i in document["inputs"]}
    names = [o.name for o in session.get_outputs()]
    outputs = [{"name": n, "datatype": NAMES[v.dtype], "shape": v.shape, "data": v.ravel().tolist()}
               for n, v in zip(names, session.run(names, feeds))]
    return {"statusCode": 200, "headers": {}, "body": json.dumps({"outputs": outputs})}


def main():
    session = load()
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", "/2018-06-01/runtime/invocation/next")
        response = api.getresponse()
        event = json.loads(response.read())
        answer = json.dumps(handle(session, event))
        request = response.headers["Lambda-Runtime-Aws-Request-Id"]
        api.request("POST", f"/2018-06-01/runtime/invocation/{request}/response", answer)
        api.getresponse().read()


if __name__ == "__main__":
    main()
