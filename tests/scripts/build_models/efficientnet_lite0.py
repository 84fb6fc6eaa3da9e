"""EfficientNet-lite0 from its published PyTorch weights: f32[N,3,224,224] to ImageNet logits [N,1000]."""

import numpy as np

from .builder import Builder, floats

# (repeats, kernel, stride of the first repeat) of the seven stages.
STAGES = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]


class _Network:
    """Threads the running value and its spatial extent through convolutions with TensorFlow's "same" padding."""

    def __init__(self, state):
        self.state, self.b, self.extent, self.value = state, Builder(), 224, "input"
        self.clip = [self.b.weight("zero", np.float32(0)), self.b.weight("six", np.float32(6))]

    def conv(self, weight, norm, stride=1, clip=True):
        """Convolution, batch normalization, and ReLU6 unless told otherwise."""
        b, w = self.b, self.state[weight]
        kernel = w.shape[2]
        out = -(-self.extent // stride)
        padding = max((out - 1) * stride + kernel - self.extent, 0)
        low, high = padding // 2, padding - padding // 2
        depthwise = w.shape[1] == 1 and kernel > 1
        y = b.op("Conv", [self.value, b.weight(weight, w)], kernel_shape=[kernel] * 2, strides=[stride] * 2,
                 pads=[low, low, high, high], group=w.shape[0] if depthwise else 1)
        names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        y = b.op("BatchNormalization", [y] + [b.weight(n, self.state[n]) for n in names], epsilon=1e-3)
        self.value, self.extent = (b.op("Clip", [y, *self.clip]) if clip else y), out

    def block(self, prefix, stride, residual):
        """Inverted bottleneck: expand (where there are weights for it), depthwise, project, add."""
        before = self.value
        if f"{prefix}_expand_conv.weight" in self.state:
            self.conv(f"{prefix}_expand_conv.weight", f"{prefix}_bn0")
        self.conv(f"{prefix}_depthwise_conv.weight", f"{prefix}_bn1", stride)
        self.conv(f"{prefix}_project_conv.weight", f"{prefix}_bn2", clip=False)
        if residual:
            self.value = self.b.op("Add", [self.value, before])


def model(state):
    """The ONNX model of a state dict."""
    net = _Network(state)
    net.conv("_conv_stem.weight", "_bn0", stride=2)
    number = 0
    for repeats, _kernel, stride in STAGES:
        for repeat in range(repeats):
            net.block(f"_blocks.{number}.", stride if repeat == 0 else 1, residual=repeat > 0)
            number += 1
    net.conv("_conv_head.weight", "_bn1")
    b = net.b
    pooled = b.op("Flatten", [b.op("GlobalAveragePool", [net.value])], axis=1)
    head = [b.weight(n, state[n]) for n in ("_fc.weight", "_fc.bias")]
    b.op("Gemm", [pooled, *head], out="logits", transB=1)
    return b.model("efficientnet-lite0", [floats("input", ["N", 3, 224, 224])], [floats("logits", ["N", 1000])], 13)
