"""Small models with their weights in fewer bits, as numpy rounds them and ONNX Runtime then computes with them.

`quantized/<name>.onnx` has its weights in f32. `quantized/<name>.npz` holds `in.<input>` and, for each encoding, what
ONNX Runtime gives for the same model with weights rounded here: `f32.<output>`, `f16.<output>`, `int8.<output>`. The rule
is written down twice, here and in shared/pack/src/encoding.rs (docs/quantization.md has it in words).
"""

import numpy as np
from onnx import numpy_helper

from ops.model import OPSET, Model


def scales(channels):
    """Of `[channels, values]`: the largest magnitude over 127, rounded up to 16 significant bits."""
    exact = np.abs(channels).max(axis=1).astype(np.float64) / 127
    fraction, exponent = np.frexp(exact)
    return np.ldexp(np.ceil(fraction * 2**16) / 2**16, exponent)


def int8(channels):
    """Symmetric, ties to even. Scales and products are exact in f32."""
    scale = scales(channels)[:, None]
    # As in f32: the quotient is rounded to f32 before it is rounded to a whole number.
    quotient = (channels.astype(np.float32) / scale.astype(np.float32)).astype(np.float32)
    q = np.rint(quotient)
    assert np.abs(q).max() == 127
    result = q.astype(np.float64) * scale
    assert (result.astype(np.float32) == result).all()
    return result.astype(np.float32)


def f16(channels):
    return channels.astype(np.float16).astype(np.float32)


ENCODINGS = {"f32": lambda channels: channels, "f16": f16, "int8": int8}
# Weights below this part of all that are rounded are f16 where the others are int8.
SMALL = 500


def rounded(array, axis, encoding):
    """`axis` numbers the channels."""
    moved = np.moveaxis(array, axis, 0)
    channels = moved.reshape(moved.shape[0], -1)
    return np.ascontiguousarray(np.moveaxis(ENCODINGS[encoding](channels).reshape(moved.shape), 0, axis))


class Quantized(Model):
    """Remembers which initializers are stored in fewer bits, and along which axis."""

    def __init__(self, name):
        super().__init__(name, OPSET)
        self.axes = {}

    def many(self, *shape, axis, scale=0.5):
        """A weight of any values, each channel of its own size, the first of which has an outlier."""
        values = self.random.standard_normal(shape) * scale
        moved = np.moveaxis(values, axis, 0)
        moved *= np.exp(self.random.standard_normal(moved.shape[0])).reshape(-1, *[1] * (len(shape) - 1))
        moved[0].flat[0] *= 20
        name = self.weight(f"many{len(self.initializers)}", values.astype(np.float32))
        self.axes[name] = axis
        return name


def images(m):
    """Convolutions in blocks, pointwise and strided ones among them, and a classifier; the depthwise one stays f32."""
    x = m.x(1, 3, 17, 14)
    a = m.op("Relu", [m.op("Conv", [x, m.many(20, 3, 3, 3, axis=0, scale=0.2), m.w(20)], pads=[1, 1, 1, 1])])
    b = m.op("Conv", [a, m.w(20, 1, 3, 3), m.w(20)], group=20, pads=[1, 1, 1, 1], strides=[2, 2])
    c = m.op("HardSwish", [m.op("Conv", [b, m.many(33, 20, 1, 1, axis=0, scale=0.2), m.w(33)])])
    m.give("Conv", [c, m.many(9, 33, 2, 3, axis=0, scale=0.1), m.w(9)], strides=[2, 1])
    pooled = m.op("Flatten", [m.op("GlobalAveragePool", [c])])
    m.give("Gemm", [pooled, m.many(17, 33, axis=0), m.w(17)], transB=1)


def rows(m):
    """Two tables, one of which is looked up by one-hot rows, products with what follows them, and a table that is so small
    that int8 leaves it f16."""
    ids = m.feed("ids", np.array([[3, 0, 39, -1, 12], [7, 7, 21, 38, 1]], np.int64))
    kinds = m.feed("kinds", np.array([[0, 5, 6, 2, 1], [4, 4, 900, 3, -1]], np.int32))
    numbers = m.weight("numbers", np.arange(6, dtype=np.int32))
    hot = m.op("Cast", [m.op("Equal", [m.op("Unsqueeze", [kinds, m.weight("axes", np.array([2]))]), numbers])], to=1)
    kind = m.op("Add", [m.op("MatMul", [hot, m.many(6, 27, axis=0)]), m.w(27)])
    x = m.op("Add", [m.op("Gather", [m.many(40, 27, axis=0), ids]), kind])
    m.give("Identity", [x])
    y = m.op("Relu", [m.op("Add", [m.op("MatMul", [x, m.many(27, 150, axis=1, scale=0.2)]), m.w(150)])])
    m.give("Add", [m.op("Add", [m.op("MatMul", [y, m.many(150, 27, axis=1, scale=0.1)]), m.w(27)]), x])
    m.give("Gather", [m.many(5, 3, axis=0), m.feed("few", np.array([4, 0, -2, 1], np.int64))])


def quantized(files, run):
    """Writes the models and answers; `run` is ONNX Runtime on the bytes of a model."""
    for build in (images, rows):
        m = Quantized(build.__name__)
        build(m)
        model = m.finish()
        plain = model.SerializeToString()
        members = {f"in.{k}": v for k, v in m.feeds.items()}
        arrays = {t.name: numpy_helper.to_array(t) for t in m.initializers if t.name in m.axes}
        values = sum(array.size for array in arrays.values())
        for encoding in ENCODINGS:
            for tensor in model.graph.initializer:
                array = arrays.get(tensor.name)
                if array is not None:
                    own = "f16" if encoding == "int8" and array.size * SMALL < values else encoding
                    tensor.CopyFrom(numpy_helper.from_array(rounded(array, m.axes[tensor.name], own), tensor.name))
            members |= {f"{encoding}.{k}": v for k, v in run(model.SerializeToString(), m.feeds).items()}
        files.data(f"quantized/{m.name}.onnx", plain)
        files.arrays(f"quantized/{m.name}.npz", members)
