#!/usr/bin/env python3
"""Runs ONNX Runtime in f32 over evaluation sets and prints each model's metric: what a smaller model is held to.

usage: baseline.py --dir DIR [--model NAME ...] [--out FILE]         (DIR as for make.py)

One JSON object by model: {"metric", "value", "samples"}, and for MiniLM the probe's top-1 beside the cosine.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import metrics
from dataset import ALPHABET, samples
from runtime import Model

# What is scored: the output and the metric.
SCORED = {
    "mnist-cnn": ("logits", "top1"),
    "ppocrv4-rec": ("softmax_11.tmp_0", "cer"),
    "silero-vad-16k-sequence": ("speech_probs", "auc"),
    "silero-vad-openvino-16k": ("output", "auc"),
    "magika-v3_3": ("target_label", "top1"),
    "minilm-l6-v2-f32": ("sentence_embedding", "cosine"),
    "efficientnet-lite0": ("logits", "top1"),
    "tab_bc_gbt": ("probabilities", "top1"),
    "tab_bc_rf": ("probabilities", "top1"),
    "tab_bc_scaler_logreg": ("probabilities", "top1"),
    "tab_digits_mlp": ("probabilities", "top1"),
    "tab_diabetes_gbr": ("variable", "r2"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="the models folder")
    parser.add_argument("--model", nargs="+", choices=SCORED, default=list(SCORED), help="some of them")
    parser.add_argument("--out", type=Path, help="a file to write instead of printing")
    arguments = parser.parse_args()
    text = json.dumps({name: baseline(arguments.dir, name) for name in arguments.model}, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def baseline(root, name):
    """The f32 model's figures on its evaluation set."""
    output, metric = SCORED[name]
    with np.load(root / "eval" / f"{name}.eval.npz") as file:
        members = dict(file)
    outputs = Model(root / f"{name}.onnx").evaluate(members, output)
    report = {"metric": metric, "output": output, "samples": samples(members)}
    return report | scores(root, name, metric, members, outputs)


def scores(root, name, metric, members, outputs):
    match metric:
        case "top1" | "auc":
            return {"value": getattr(metrics, metric)(outputs, members["label"])}
        case "r2":
            return {"value": metrics.r2(outputs, members["target"])}
        case "cer":
            return {"value": metrics.cer(outputs, members["text"], members[ALPHABET])}
        case "cosine":
            with np.load(root / "eval" / f"{name}.probe.npz") as probe:
                return {"value": 1.0, "probe": metrics.probe(outputs, members["label"], **probe)}


if __name__ == "__main__":
    main()
