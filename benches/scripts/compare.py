#!/usr/bin/env python3
"""Largest difference of each engine's outputs from the reference, over the largest value of that output.

usage: compare.py REFERENCE.npz ENGINE=OUT ...      prints {"ENGINE": error, ..}; null where it cannot be told

OUT is an npz file, or a V2 answer as JSON.
"""

import json
import sys

import numpy as np


def error(reference, found):
    """The largest over all outputs; integers that differ at all count as 1. None where names or shapes differ."""
    worst = 0.0
    for name in reference:
        if name not in found or found[name].size != reference[name].size:
            return None
        wanted, got = reference[name].ravel(), found[name].ravel()
        if np.issubdtype(wanted.dtype, np.integer):
            worst = max(worst, float(not np.array_equal(wanted, got)))
            continue
        difference = float(np.abs(wanted.astype(np.float64) - got).max())
        worst = max(worst, difference / max(float(np.abs(wanted).max()), 1e-30))
        if not np.isfinite(worst):
            return None
    return worst


def load(path):
    if not path.endswith(".json"):
        return dict(np.load(path))
    with open(path, encoding="utf-8") as f:
        return {o["name"]: np.array(o["data"]) for o in json.load(f)["outputs"]}


def main():
    reference = load(sys.argv[1])
    pairs = [argument.split("=", 1) for argument in sys.argv[2:]]
    print(json.dumps({engine: error(reference, load(path)) for engine, path in pairs}))


if __name__ == "__main__":
    main()
