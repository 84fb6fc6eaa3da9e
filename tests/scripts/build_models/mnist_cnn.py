#!/usr/bin/env python3
"""Trains mnist-cnn in numpy, seeded: how the vendored file was made.

usage: python -m build_models.mnist_cnn --cache DIR --out FILE       (in tests/scripts; takes a few minutes)

Another BLAS sums in another order, so a retrained file has the same accuracy but not the same bytes: the
vendored one stays as it is, and the goldens belong to it.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx

import mnist

from .builder import Builder, floats

EPOCHS, BATCH = 8, 64


def _columns(x, kernel, stride, padding):
    """im2col: [N, C, H, W] to [N * oh * ow, C * k * k], and (N, oh, ow)."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    n, channels, height, width = windows.shape[:4]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * kernel * kernel), (n, height, width)


class Network:
    """conv 5x5/2 of 8, conv 3x3/2 of 16, dense 64, dense 10; ReLU between; softmax cross-entropy; Adam."""

    def __init__(self):
        self.random = np.random.RandomState(1)
        he = lambda *s: (self.random.randn(*s) * np.sqrt(2 / np.prod(s[1:]))).astype(np.float32)
        zeros = lambda n: np.zeros(n, np.float32)
        self.parameters = [he(8, 1, 5, 5), zeros(8), he(16, 8, 3, 3), zeros(16), he(64, 784), zeros(64), he(10, 64), zeros(10)]
        self.first = [np.zeros_like(p) for p in self.parameters]
        self.second = [np.zeros_like(p) for p in self.parameters]
        self.step = 0

    def forward(self, x):
        """Every intermediate value that `gradients` needs; the logits are the last."""
        w1, b1, w2, b2, w3, b3, w4, b4 = self.parameters
        c1, shape1 = _columns(x, 5, 2, 2)
        z1 = (c1 @ w1.reshape(8, -1).T + b1).reshape(*shape1, 8).transpose(0, 3, 1, 2)
        c2, shape2 = _columns(np.maximum(z1, 0), 3, 2, 1)
        z2 = (c2 @ w2.reshape(16, -1).T + b2).reshape(*shape2, 16).transpose(0, 3, 1, 2)
        flat = np.maximum(z2, 0).reshape(len(x), -1)
        z3 = flat @ w3.T + b3
        a3 = np.maximum(z3, 0)
        return c1, z1, c2, z2, flat, z3, a3, a3 @ w4.T + b4

    def gradients(self, x, y):
        c1, z1, c2, z2, flat, z3, a3, logits = self.forward(x)
        _, _, w2, _, w3, _, w4, _ = self.parameters
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        d4 = exponentials / exponentials.sum(1, keepdims=True)
        d4[np.arange(len(y)), y] -= 1
        d4 /= len(y)
        d3 = (d4 @ w4) * (z3 > 0)
        d2 = ((d3 @ w3).reshape(z2.shape) * (z2 > 0)).transpose(0, 2, 3, 1).reshape(-1, 16)
        d1 = (self._back_through_conv2(d2 @ w2.reshape(16, -1), len(x)) * (z1 > 0)).transpose(0, 2, 3, 1).reshape(-1, 8)
        w1_shape, w2_shape = self.parameters[0].shape, w2.shape
        return [(d1.T @ c1).reshape(w1_shape), d1.sum(0), (d2.T @ c2).reshape(w2_shape), d2.sum(0),
                d3.T @ flat, d3.sum(0), d4.T @ a3, d4.sum(0)]

    @staticmethod
    def _back_through_conv2(columns, n):
        """The transpose of `_columns` for the second convolution: [n, 8, 14, 14]."""
        columns = columns.reshape(n, 7, 7, 8, 3, 3)
        image = np.zeros((n, 8, 16, 16), np.float32)
        for i in range(3):
            for j in range(3):
                image[:, :, i:i + 14:2, j:j + 14:2] += columns[:, :, :, :, i, j].transpose(0, 3, 1, 2)
        return image[:, :, 1:15, 1:15]

    def adam(self, gradients, rate):
        self.step += 1
        for p, m, v, g in zip(self.parameters, self.first, self.second, gradients):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            p -= (rate * (m / (1 - 0.9**self.step)) / (np.sqrt(v / (1 - 0.999**self.step)) + 1e-8)).astype(np.float32)

    def onnx(self):
        b = Builder()
        names = ["c1w", "c1b", "c2w", "c2b", "f1w", "f1b", "f2w", "f2b"]
        for name, value in zip(names, self.parameters):
            b.weight(name, value)
        x = b.op("Relu", [b.op("Conv", ["image", "c1w", "c1b"], kernel_shape=[5, 5], strides=[2, 2], pads=[2] * 4)])
        x = b.op("Relu", [b.op("Conv", [x, "c2w", "c2b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)])
        x = b.op("Relu", [b.op("Gemm", [b.op("Flatten", [x], axis=1), "f1w", "f1b"], transB=1)])
        b.op("Gemm", [x, "f2w", "f2b"], out="logits", transB=1)
        return b.model("mnist-cnn", [floats("image", ["N", 1, 28, 28])], [floats("logits", ["N", 10])], 13)


def train(cache):
    """The trained network; prints the held-out accuracy of every epoch."""
    images, labels, test_images, test_labels = mnist.split(cache)
    net = Network()
    for epoch in range(EPOCHS):
        rate = 2e-3 * 0.6**epoch
        for batch in np.array_split(net.random.permutation(len(images)), len(images) // BATCH):
            net.adam(net.gradients(images[batch], labels[batch]), rate)
        accuracy = (net.forward(test_images)[-1].argmax(1) == test_labels).mean()
        print(f"epoch {epoch}: {accuracy:.4f} of {len(test_labels)} held-out digits", flush=True)
    return net


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder filled by `cargo xtask models --all`")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write")
    arguments = parser.parse_args()
    onnx.save(train(arguments.cache).onnx(), str(arguments.out))


if __name__ == "__main__":
    main()
