"""MobileNetV2 and ResNet-50: their exact layer shapes, seeded random weights.

For bytes and speed only: nothing can be said of their accuracy.
"""

import numpy as np

from .builder import Builder, floats

# (expansion, channels, repeats, stride of the first repeat)
MOBILENET_STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
# (channels, repeats, stride of the first repeat)
RESNET_STAGES = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]


class _Network:
    """Convolutions over He-initialized weights; activations stay bounded."""

    def __init__(self):
        self.b, self.random = Builder(), np.random.default_rng(0)
        self.clip = [self.b.weight("zero", np.float32(0)), self.b.weight("six", np.float32(6))]

    def normal(self, shape, deviation):
        name = f"w{len(self.b.initializers)}"
        return self.b.weight(name, (self.random.standard_normal(shape) * deviation).astype(np.float32))

    def conv(self, x, channels_in, channels_out, kernel, stride=1, group=1, activation=None):
        fan_in = channels_in // group * kernel * kernel
        weight = self.normal((channels_out, channels_in // group, kernel, kernel), np.sqrt(2 / fan_in))
        y = self.b.op("Conv", [x, weight, self.normal(channels_out, 0.05)], kernel_shape=[kernel] * 2,
                      strides=[stride] * 2, pads=[kernel // 2] * 4, group=group)
        if activation == "relu6":
            return self.b.op("Clip", [y, *self.clip])
        return self.b.op("Relu", [y]) if activation == "relu" else y

    def finish(self, name, x, channels, deviation):
        """Global pooling and a classifier of 1000."""
        b = self.b
        pooled = b.op("Flatten", [b.op("GlobalAveragePool", [x])], axis=1)
        bias = b.weight("classifier.bias", np.zeros(1000, np.float32))
        b.op("Gemm", [pooled, self.normal((1000, channels), deviation), bias], out="logits", transB=1)
        return b.model(name, [floats("input", ["N", 3, 224, 224])], [floats("logits", ["N", 1000])], 17)


def mobilenetv2():
    net = _Network()
    x, channels = net.conv("input", 3, 32, 3, 2, activation="relu6"), 32
    for expansion, width, repeats, first_stride in MOBILENET_STAGES:
        for repeat in range(repeats):
            stride, hidden, y = first_stride if repeat == 0 else 1, channels * expansion, x
            if expansion != 1:
                y = net.conv(y, channels, hidden, 1, activation="relu6")
            y = net.conv(y, hidden, hidden, 3, stride, group=hidden, activation="relu6")
            y = net.conv(y, hidden, width, 1)
            x = net.b.op("Add", [x, y]) if stride == 1 and channels == width else y
            channels = width
    return net.finish("mobilenetv2", net.conv(x, 320, 1280, 1, activation="relu6"), 1280, 0.03)


def resnet50():
    net = _Network()
    x, channels = net.conv("input", 3, 64, 7, 2, activation="relu"), 64
    x = net.b.op("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for width, repeats, first_stride in RESNET_STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            y = net.conv(x, channels, width, 1, activation="relu")
            y = net.conv(y, width, width, 3, stride, activation="relu")
            y = net.conv(y, width, 4 * width, 1)
            same = stride == 1 and channels == 4 * width
            shortcut = x if same else net.conv(x, channels, 4 * width, 1, stride)
            x, channels = net.b.op("Relu", [net.b.op("Add", [y, shortcut])]), 4 * width
    return net.finish("resnet50", x, 2048, 0.02)
