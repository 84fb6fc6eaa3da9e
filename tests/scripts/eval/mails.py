"""MiniLM: mails of SpamAssassin's corpus, tokenized, and a linear probe on the embeddings that tells spam from the rest.

What the model is to keep is its embedding: cosine to the f32 model's. The probe (`<model>.probe.npz`) tells whether what is lost
matters: it is fitted on f32 embeddings of mails that are in neither file. `<model>.probe.onnx` is the model with the probe as its last
layer, so that top-1 can be the contract of a pack.
"""

import email
import email.policy
import html
import re

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

from dataset import Dataset, save
from runtime import Model

MODEL, OUTPUT, LENGTH = "minilm-l6-v2-f32", "sentence_embedding", 128
# Mails of each class.
EVALUATION, CALIBRATION, PROBE = 300, 64, 400
FOLDERS = {0: ["easy-ham-1", "easy-ham-2", "hard-ham-1"], 1: ["spam-1", "spam-2"]}
# Of a body: about as much as fills a sample.
CHARACTERS = 450


def datasets(root):
    parts = split(root / "data" / "spam")
    tokenizer = tokens(root)
    evaluation, calibration, probe = (encoded(tokenizer, texts) | {"label": labels} for texts, labels in parts)
    path = root / f"{MODEL}.onnx"
    probe = fitted(Model(path), probe)
    save(root / "eval" / f"{MODEL}.probe.npz", probe)
    onnx.save(with_probe(onnx.load(path), **probe), root / "eval" / f"{MODEL}.probe.onnx")
    del calibration["label"]
    return [Dataset(MODEL, calibration, evaluation)]


def split(folder):
    """(texts, labels) to evaluate, to calibrate and to fit the probe: as many of either class, none twice."""
    random, seen = np.random.RandomState(7), set()
    parts = [([], []) for _ in range(3)]
    for label, names in FOLDERS.items():
        paths = [path for name in names for path in sorted((folder / name).glob("*.txt"))]
        order = iter(random.permutation(len(paths)))
        for (texts, labels), wanted in zip(parts, (EVALUATION, CALIBRATION, PROBE)):
            goal = len(texts) + wanted
            while len(texts) < goal:
                text = readable(paths[next(order)].read_bytes())
                key = re.sub(r"\W|\d", "", text.lower())[:80]
                if len(key) >= 20 and key not in seen:
                    seen.add(key)
                    texts.append(text)
                    labels.append(label)
    return [(texts, np.array(labels, np.int64)) for texts, labels in parts]


def readable(data):
    """Subject and the beginning of the body, as plain text in one line."""
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    part = next((p for p in message.walk() if p.get_content_maintype() == "text"), None)
    body = part.get_payload(decode=True).decode("latin-1") if part else ""
    if part and part.get_content_subtype() == "html":
        body = html.unescape(re.sub(r"(?s)<(script|style).*?</\1>|<!--.*?-->|<[^>]*>", " ", body))
    subject = re.sub(r"^(re|fwd?):\s*|\[[^]]*\]\s*", "", str(message.get("Subject", "")), flags=re.IGNORECASE)
    return f"{' '.join(subject.split())}. {' '.join(body.split())[:CHARACTERS]}"


def tokens(root):
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=0, pad_token="[PAD]")
    return tokenizer


def encoded(tokenizer, texts):
    encodings = tokenizer.encode_batch(texts)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(e, field) for e in encodings], np.int64) for name, field in fields.items()}


def fitted(model, members):
    """The probe: logits = weight @ embedding + bias, f32[2,384] and f32[2]; the larger one is the class."""
    from sklearn.linear_model import LogisticRegression

    embeddings = np.concatenate(model.evaluate(members, OUTPUT))
    probe = LogisticRegression(max_iter=1000).fit(embeddings, members["label"])
    weight = np.concatenate([-probe.coef_, probe.coef_]) / 2
    bias = np.concatenate([-probe.intercept_, probe.intercept_]) / 2
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def with_probe(model, weight, bias):
    """The model with the probe's logits as its only output."""
    graph = model.graph
    graph.initializer.extend([numpy_helper.from_array(weight, "probe.weight"), numpy_helper.from_array(bias, "probe.bias")])
    graph.node.append(helper.make_node("Gemm", [OUTPUT, "probe.weight", "probe.bias"], ["logits"], name="probe", transB=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", len(bias)]))
    onnx.checker.check_model(model)
    return model
