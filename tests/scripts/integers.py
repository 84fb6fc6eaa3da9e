"""Small models that come quantized, in each form that files have for it, and what a pack of them has to give.

`integers/<name>.onnx` is the model; `integers/<name>.npz` holds `in.<input>` and, as `out.<output>`, what ONNX Runtime gives for the
same network in floats: weights multiplied out by numpy, activations held to the range of their type and not rounded. Where only
weights are quantized, the answers are of the model itself. That the two are the same network is checked here: its own
answers, all rounding included, are near.
"""

import numpy as np
from onnx import TensorProto, helper

from build_models.builder import IR_VERSION
from ops.model import OPSET, Model

RANGE = {np.uint8: (0, 255), np.int8: (-128, 127)}


class Integers(Model):
    """A network in integers, or in floats where `floats` says so."""

    def __init__(self, name, floats, opset):
        super().__init__(name, opset)
        self.floats = floats

    def scalar(self, value):
        return self.weight(f"s{len(self.initializers)}", np.array(value))

    def stored(self, q, scale, zero=None, axis=None):
        """The names of integers, scale and zero point; in floats the one of what they are."""
        scale, zero = np.float32(scale), np.zeros(np.shape(scale), q.dtype) if zero is None else np.array(zero, q.dtype)
        if not self.floats:
            return [self.weight(f"q{len(self.initializers)}", q), self.scalar(scale), self.scalar(zero)]
        shape = [1] * q.ndim
        if np.ndim(scale):
            shape[axis] = -1
        real = (q.astype(np.int64) - zero.astype(np.int64).reshape(shape)) * scale.astype(np.float64).reshape(shape)
        return [self.weight(f"q{len(self.initializers)}", real.astype(np.float32))]

    def real(self, *args, axis=None, **options):
        """Stored integers as floats."""
        names = self.stored(*args, axis=axis, **options)
        attributes = {} if axis is None else {"axis": axis}
        return names[0] if self.floats else self.op("DequantizeLinear", names, **attributes)

    def clipped(self, x, scale, zero, dtype):
        least, most = ((bound - zero) * np.float64(np.float32(scale)) for bound in RANGE[dtype])
        return self.op("Clip", [x, self.scalar(np.float32(least)), self.scalar(np.float32(most))])

    def quantize(self, x, scale, zero=0, dtype=np.uint8):
        """Rounded to integers; in floats held to their range. What `integer` and `back` take."""
        if self.floats:
            return [self.clipped(x, scale, zero, dtype)]
        names = [self.scalar(np.float32(scale)), self.scalar(dtype(zero))]
        return [self.op("QuantizeLinear", [x, *names]), *names]

    def back(self, quantized):
        return quantized[0] if self.floats else self.op("DequantizeLinear", quantized)

    def rounded(self, x, scale, zero=0, dtype=np.uint8):
        return self.back(self.quantize(x, scale, zero, dtype))

    def outside(self, name, q, scale, zero):
        """Integers that are an input."""
        names = [self.feed(name, q), self.scalar(np.float32(scale)), self.scalar(np.array(zero, q.dtype))]
        return [self.op("DequantizeLinear", names)] if self.floats else names

    def moved(self, kind, quantized, *more, **attributes):
        """An operator that computes nothing, of integers."""
        return [self.op(kind, [quantized[0], *more], **attributes), *quantized[1:]]

    def integer(self, kind, float_kind, operands, scale, zero, bias=None, dtype=np.uint8, **attributes):
        """An operator of integers. `bias` is an int32 in parts of the product of the scales."""
        if self.floats:
            inputs = [names[0] for names in operands] + ([bias] if bias else [])
            return [self.clipped(self.op(float_kind, inputs, **attributes), scale, zero, dtype)]
        names = [self.scalar(np.float32(scale)), self.scalar(dtype(zero))]
        inputs = sum(operands, [])
        if kind == "QLinearConcat":
            inputs = names + inputs
        elif kind == "QGemm":
            inputs += [bias, *names]
        else:
            inputs += names + ([bias] if bias else [])
        domain = "" if kind in ("QLinearConv", "QLinearMatMul") else "com.microsoft"
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], domain=domain, name=f"{kind}.{out}", **attributes))
        return [out, *names]

    def bias(self, values, scales):
        """In parts of `scales`."""
        real = (values.astype(np.float64) * scales).astype(np.float32)
        return self.weight(f"q{len(self.initializers)}", real if self.floats else values.astype(np.int32))

    def drawn(self, *shape, least=-127, most=127, dtype=np.int8):
        q = np.rint(self.random.standard_normal(shape) * (most - least) / 6 + (most + least) / 2)
        return q.clip(least, most).astype(dtype)

    def scales(self, n, size=0.01):
        return (np.exp(self.random.standard_normal(n) * 0.3) * size).astype(np.float32)

    def finish(self):
        """The model's bytes. No types are inferred: onnx knows nothing of Microsoft's operators."""
        known = {"out": TensorProto.FLOAT, "integers": TensorProto.UINT8}
        outputs = [helper.make_tensor_value_info(name, known[name.split(".")[0]], None) for name in self.outputs]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, outputs, self.initializers)
        # Four bits came with version 10.
        version = max(IR_VERSION, 10 if self.opset >= 21 else 0)
        domains = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=version, producer_name="glowplug-tests").SerializeToString()


def weights(m):
    """Stored as integers in every way that is exact, and one whose integers do not fit seven bits and a sign."""
    x = m.x(2, 24)
    cast = lambda name: m.op("Cast", [name], to=TensorProto.FLOAT)
    column = m.scales(40).reshape(1, 40)
    a = m.op("Mul", [cast(m.weight("a", m.drawn(24, 40))), m.weight("a.scale", column)])
    x = m.op("Tanh", [m.op("MatMul", [x, a])])
    unsigned = m.op("Sub", [cast(m.weight("b", m.drawn(40, 33, least=1, most=255, dtype=np.uint8))), m.scalar(np.float32(128))])
    x = m.op("Tanh", [m.op("MatMul", [x, m.op("Mul", [m.scalar(np.float32(0.0123)), unsigned])])])
    image = m.op("Reshape", [x, m.ints("image", [2, 1, 3, 11])])
    kernel = m.real(m.drawn(16, 1, 3, 3), m.scales(16), axis=0)
    bias = m.op("DequantizeLinear", [m.weight("bias", np.arange(-800, 800, 100, dtype=np.int32)), m.scalar(np.float32(0.001))])
    m.give("Conv", [image, kernel, bias], out="out.image")
    trained = m.weight("trained", m.normal(33, 20, scale=0.4))
    step = [m.weight("steps", m.scales(20, 0.02)), m.weight("zeros", np.zeros(20, np.int8))]
    trained = m.op("DequantizeLinear", [m.op("QuantizeLinear", [trained, *step], axis=1), *step], axis=1)
    x = m.op("Tanh", [m.op("MatMul", [x, trained])])
    lopsided = m.drawn(20, 17, least=0, most=255, dtype=np.uint8)
    lopsided[0, 0], lopsided[1, 0] = 0, 255
    m.give("MatMul", [x, m.real(lopsided, 0.004, zero=77)], out="out.rows")
    table = [m.weight("table", m.drawn(30, 24)), m.scalar(np.float32(0.02)), m.scalar(np.int8(0))]
    ids = m.feed("ids", np.array([[3, 29], [0, 7]]))
    m.give("DequantizeLinear", [m.op("Gather", [table[0], ids]), *table[1:]], out="out.table")


def blocks(m):
    """Four bits, and a scale for each block of a column."""
    q = helper.make_tensor("q", TensorProto.INT4, [32, 15], m.drawn(32, 15, least=-8, most=7).ravel().tolist())
    m.initializers.append(q)
    scale = m.weight("scale", m.scales(4 * 15, 0.1).reshape(4, 15))
    w = m.op("DequantizeLinear", ["q", scale], axis=0, block_size=8)
    m.give("MatMul", [m.x(3, 32), w], out="out.rows")


def activations(m):
    """Pairs of QuantizeLinear and DequantizeLinear: around a Softmax, a residual and a pool, and where a Relu was left to them."""
    pixels = np.rint(m.random.uniform(0, 255, (2, 3, 9, 8))).astype(np.uint8)
    # Integers come from outside, are floats, and integers again.
    x = m.op("DequantizeLinear", [m.feed("pixels", pixels), m.scalar(np.float32(0.02)), m.scalar(np.uint8(128))])
    x = m.rounded(x, 0.02, 128)
    scales = m.scales(16)
    bias = m.bias(m.drawn(16, least=-2000, most=2000, dtype=np.int32), 0.02 * scales.astype(np.float64))
    if not m.floats:
        bias = m.op("DequantizeLinear", [bias, m.weight("bias.scale", (0.02 * scales).astype(np.float32))], axis=0)
    a = m.op("Conv", [x, m.real(m.drawn(16, 3, 3, 3), scales, axis=0), bias], pads=[1, 1, 1, 1])
    # Nothing below 0 comes back, and nothing above 3.8.
    a = m.moved("MaxPool", m.quantize(a, 0.015), kernel_shape=[2, 2], strides=[2, 2])
    b = m.op("Conv", [m.back(a), m.real(m.drawn(16, 16, 1, 1), m.scales(16, 0.004), axis=0)])
    c = m.op("Add", [m.rounded(b, 0.03, 3, np.int8), m.back(a)])
    c = m.quantize(m.op("Relu", [c]), 0.025)
    m.give("Identity", [m.back(c)], out="out.sum")
    flat = m.moved("Reshape", m.moved("Transpose", c, perm=[0, 2, 3, 1]), m.ints("rows", [2, 16, 16]))
    both = m.back([m.op("Concat", [flat[0], flat[0]], axis=1), *flat[1:]])
    scores = m.op("Softmax", [m.rounded(m.op("MatMul", [both, m.real(m.drawn(16, 10), 0.01)]), 0.05, 100)], axis=-1)
    m.give("Identity", [m.rounded(scores, 1 / 256)], out="out.scores")
    # For whoever wants integers.
    last = m.quantize(scores, 1 / 128, 5)
    last = m.moved("Slice", last, m.ints("from", [0, 3]), m.ints("to", [2, 11]), m.ints("axes", [0, 1]))
    last = m.moved("Gather", last, m.ints("columns", [9, 0, 4]), axis=2)
    last = m.moved("Expand", m.moved("Unsqueeze", last, m.ints("first", [0])), m.ints("wide", [2, 1, 1, 1]))
    if m.floats:
        last = [m.op("QuantizeLinear", [last[0], m.scalar(np.float32(1 / 128)), m.scalar(np.uint8(5))])]
    m.give("Identity", last[:1], out="integers.means")


def operators(m):
    """Operators that take and give integers."""
    x = m.quantize(m.x(1, 8, 7, 6), 0.02, 128)
    per_filter = m.scales(16)
    bias = m.bias(m.drawn(16, least=-3000, most=3000, dtype=np.int32), 0.02 * per_filter.astype(np.float64))
    w = m.stored(m.drawn(16, 8, 3, 3), per_filter, axis=0)
    a = m.integer("QLinearConv", "Conv", [x, w], 0.05, 10, bias=bias, pads=[1, 1, 1, 1])
    b = m.integer("QLinearLeakyRelu", "LeakyRelu", [a], 0.04, 40, alpha=0.125)
    c = m.integer("QLinearAdd", "Add", [a, b], 0.09, 60)
    d = m.integer("QLinearMul", "Mul", [c, m.integer("QLinearSigmoid", "Sigmoid", [c], 1 / 256, 0)], 0.08, 20)
    e = m.integer("QLinearAveragePool", "AveragePool", [d], 0.06, 20, kernel_shape=[2, 2])
    f = m.integer("QLinearConcat", "Concat", [e, e], 0.06, 20, axis=1)
    m.give("Identity", [m.back(f)], out="out.image")
    g = m.moved("Flatten", m.integer("QLinearGlobalAveragePool", "GlobalAveragePool", [f], 0.04, 10))
    columns = m.scales(24, 0.005)
    bias = m.bias(m.drawn(24, least=-900, most=900, dtype=np.int32), np.float64(np.float32(0.04)) * columns.astype(np.float64))
    h = m.integer("QGemm", "Gemm", [g, m.stored(m.drawn(24, 32), columns, axis=0)], 0.03, 128, bias=bias, transB=1)
    i = m.integer("QLinearMatMul", "MatMul", [h, m.stored(m.drawn(24, 9), 0.006)], 0.02, 128)
    m.give("Identity", [m.back(i)], out="out.row")
    m.give("Identity", [m.back(m.integer("QLinearSoftmax", "Softmax", [i], 1 / 256, 0, axis=-1, **({} if m.floats else {"opset": 13})))],
           out="out.scores")
    rows = m.moved("Gather", m.stored(m.drawn(12, 24), 0.01), m.feed("ids", np.array([3, 0, 11])))
    names = m.stored(m.drawn(24, 24), m.scales(24, 0.005), axis=1)
    rows = m.integer("QLinearMatMul", "MatMul", [rows, names], 0.03, 5, dtype=np.int8)
    shift = np.arange(-36, 36, dtype=np.int8).reshape(3, 24)
    m.give("Identity", [m.back(m.integer("QLinearAdd", "Add", [rows, m.outside("shift", shift, 0.02, -4)], 0.03, -1, dtype=np.int8))], out="out.rows")


def dynamic(m):
    """Products of integers whose scales are found as the model runs."""
    def product(kind, x, q, scale, zero=None, **attributes):
        if m.floats:
            return m.op(kind, [x, *m.stored(q, scale, zero, axis=0 if kind == "Conv" else q.ndim - 1)], **attributes)
        xq, xs, xz = (f"{x}.{part}.{len(m.nodes)}" for part in ("q", "scale", "zero"))
        m.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], [xq, xs, xz]))
        names = m.stored(q, scale, zero)
        shaped = np.float32(scale).reshape(-1, 1, 1) if kind == "Conv" and np.ndim(scale) else np.float32(scale)
        scales = m.op("Mul", [xs, m.scalar(shaped)])
        inputs = [xq, names[0], xz] + ([names[2]] if zero is not None or kind == "Conv" else [])
        return m.op("Mul", [m.op("Cast", [m.op(f"{kind}Integer", inputs, **attributes)], to=TensorProto.FLOAT), scales])
    a = product("Conv", m.x(1, 3, 9, 8), m.drawn(16, 3, 3, 3), 0.01, strides=[2, 2])
    a = m.op("Relu", [a])
    m.give("Identity", [a], out="out.image")
    rows = m.op("Reshape", [a, m.ints("rows", [4, 48])])
    b = m.op("Tanh", [m.op("Add", [product("MatMul", rows, m.drawn(48, 20), m.scales(20, 0.004)), m.w(20)])])
    table = [m.weight("table", m.drawn(12, 20)), m.scalar(np.float32(0.03)), m.scalar(np.int8(0))]
    # Rows of a stored table, which the quantizer multiplies as they are.
    rows = m.op("Gather", [table[0], m.feed("ids", np.array([7, 0]))])
    weight = m.stored(m.drawn(20, 12), 0.01)
    if m.floats:
        real = m.op("DequantizeLinear", [rows, *table[1:]])
        m.give("MatMul", [real, *weight], out="out.looked_up")
    else:
        sums = m.op("Cast", [m.op("MatMulInteger", [rows, weight[0], table[2], weight[2]])], to=TensorProto.FLOAT)
        m.give("Mul", [sums, m.op("Mul", [table[1], weight[1]])], out="out.looked_up")
    m.give("Identity", [product("MatMul", b, m.drawn(20, 11, least=1, most=255, dtype=np.uint8), 0.02, zero=np.uint8(128))], out="out.rows")


# Version of ONNX, and how far what the network gives in integers may be from what it gives in floats, of the largest value: where
# activations are not rounded, the answers are of the model itself.
CASES = [(weights, OPSET, None), (blocks, 21, None), (activations, OPSET, 0.04), (operators, OPSET, 0.06), (dynamic, OPSET, 0.03)]


def integers(files, run):
    """Writes the models and answers; `run` is ONNX Runtime on the bytes of a model."""
    for build, opset, near in CASES:
        def built(floats):
            m = Integers(build.__name__, floats, opset)
            build(m)
            return m
        own = built(False)
        model = own.finish()
        answers = run(model, own.feeds)
        if near:
            rounded, answers = answers, run(built(True).finish(), own.feeds)
            for name, value in answers.items():
                away = np.abs(value - rounded[name].astype(np.float64)).max() / np.abs(rounded[name]).max()
                assert away <= near, (build.__name__, name, away)
        files.data(f"integers/{build.__name__}.onnx", model)
        members = {f"in.{k}": v for k, v in own.feeds.items()}
        files.arrays(f"integers/{build.__name__}.npz", members | {f"out.{k}": v for k, v in answers.items()})
