#!/usr/bin/env python3
"""An API Gateway event (payload format 2.0) that asks a model for inference.     usage: event.py INPUT.npz MODEL EVENT.json"""

import json
import sys

import numpy as np

NAMES = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}


def numbers(values):
    """As JSON numbers; a float as short as it can be told apart."""
    return [float(str(x)) for x in values] if values.dtype == np.float32 else values.tolist()


def main():
    source, model, target = sys.argv[1:]
    inputs = [{"name": name, "datatype": NAMES[str(v.dtype)], "shape": v.shape, "data": numbers(v.ravel())}
              for name, v in np.load(source).items()]
    path = f"/v2/models/{model}/versions/1/infer"
    http = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "198.51.100.24", "userAgent": "bench"}
    context = {"accountId": "000000000000", "apiId": "bench", "domainName": "bench.example", "domainPrefix": "bench",
               "http": http, "requestId": "bench", "routeKey": "$default", "stage": "$default",
               "time": "24/Nov/2026:08:12:30 +0000", "timeEpoch": 1795507950214}
    event = {"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
             "headers": {"content-type": "application/json"}, "requestContext": context,
             "body": json.dumps({"inputs": inputs}), "isBase64Encoded": False}
    with open(target, "w", encoding="utf-8") as f:
        json.dump(event, f)


if __name__ == "__main__":
    main()
