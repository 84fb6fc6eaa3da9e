"""One tiny model per operator that plans know, in the variants that matter, with ONNX Runtime's answers.

Every model is `ops/<name>.onnx` in tests/data, its tensors `ops/<name>.npz`: members `in.<input>` and `out.<output>`.
`ops/ops.json` says which of the plan's operators each model must be coded with.
"""

import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper

from build_models.builder import IR_VERSION, Builder

OPSET = 17


class Model(Builder):
    """A graph under construction, with inputs and seeded values of its own."""

    def __init__(self, name, opset):
        super().__init__()
        self.name, self.opset, self.inputs, self.feeds, self.outputs = name, opset, [], {}, []
        self.random = np.random.RandomState(zlib.crc32(name.encode()))

    def normal(self, *shape, scale=1.0):
        """In steps of 1/64, so that the files stay small."""
        return (np.rint(self.random.standard_normal(shape) * scale * 64) / 64).astype(np.float32)

    def feed(self, name, value):
        """A graph input and what it is fed with."""
        value = np.asarray(value)
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, dtype, value.shape))
        self.feeds[name] = value
        return name

    def x(self, *shape, scale=1.0, name="x"):
        """An input of seeded normal values."""
        return self.feed(name, self.normal(*shape, scale=scale))

    def w(self, *shape, scale=0.5):
        """A weight of seeded normal values."""
        return self.weight(f"w{len(self.initializers)}", self.normal(*shape, scale=scale))

    def give(self, kind, inputs, out=None, **attributes):
        """A node whose output is the graph's too."""
        out = out or f"y{len(self.outputs)}"
        self.outputs.append(out)
        return self.op(kind, inputs, out=out, **attributes)

    def finish(self):
        """The checked model; the types of its outputs are inferred."""
        untyped = [helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, untyped, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION,
                                  producer_name="glowplug-tests")
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
        del model.graph.value_info[:]
        return model


CASES = []


def case(name, plan, opset=OPSET):
    """Registers a function that builds the model `name`; `plan` names operators that its plan must hold."""
    def register(build):
        CASES.append((name, plan.split(), opset, build))
        return build
    return register


def ops(files, run):
    """Writes all models and answers; `run` is ONNX Runtime on the bytes of a model."""
    rows = []
    for name, plan, opset, build in CASES:
        m = Model(name, opset)
        build(m)
        content = m.finish().SerializeToString()
        answers = run(content, m.feeds)
        assert all(np.isfinite(v).all() for v in answers.values() if v.dtype == np.float32), name
        files.data(f"ops/{name}.onnx", content)
        members = {f"in.{k}": v for k, v in m.feeds.items()} | {f"out.{k}": v for k, v in answers.items()}
        files.arrays(f"ops/{name}.npz", members)
        rows.append({"model": name, "plan": plan})
    files.document("ops/ops.json", {"models": rows})


# Convolutions: name, shape of x, shape of the weights, attributes.
for name, plan, shape, weights, bias, attributes in [
    ("conv-pads", "Im2col MatMul Panels", (1, 3, 9, 8), (5, 3, 3, 3), True, {"pads": [1, 1, 1, 1]}),
    ("conv-pads-uneven", "Im2col MatMul", (1, 3, 9, 8), (5, 3, 3, 3), True, {"pads": [0, 1, 2, 1]}),
    ("conv-same-upper", "Im2col MatMul", (1, 3, 9, 8), (5, 3, 4, 3), True, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("conv-same-lower", "Im2col MatMul", (1, 3, 9, 8), (5, 3, 4, 3), True, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("conv-strides", "Im2col MatMul", (1, 3, 11, 10), (4, 3, 3, 2), True, {"strides": [2, 3]}),
    ("conv-dilations", "Im2col MatMul", (1, 2, 11, 12), (4, 2, 3, 3), True, {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ("conv-groups", "Im2col MatMul", (1, 4, 7, 7), (6, 2, 3, 3), True, {"group": 2, "pads": [1, 1, 1, 1]}),
    ("conv-no-bias", "Im2col MatMul", (1, 2, 6, 6), (3, 2, 3, 3), False, {}),
    ("conv-batch", "Im2col MatMul", (3, 2, 6, 5), (4, 2, 3, 3), True, {"pads": [1, 1, 1, 1]}),
    ("conv-1x1", "MatMul", (1, 6, 5, 4), (8, 6, 1, 1), True, {}),
    ("conv-1x1-strides", "MatMul", (1, 6, 7, 6), (8, 6, 1, 1), True, {"strides": [2, 2]}),
    ("conv-1d", "Im2col MatMul", (1, 3, 17), (5, 3, 4), True, {"pads": [2, 1], "strides": [2]}),
    ("conv-1d-dilations", "Im2col MatMul", (2, 3, 17), (5, 3, 3), True, {"dilations": [3], "pads": [3, 3]}),
    ("conv-1d-groups", "Im2col MatMul", (1, 4, 12), (4, 2, 3), True, {"group": 2}),
    ("conv-direct", "DirectConv", (1, 2, 3, 130), (5, 2, 3, 3), True, {"pads": [1, 1, 1, 1]}),
    ("conv-direct-strides", "DirectConv", (1, 2, 5, 260), (4, 2, 3, 3), True, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("conv-direct-no-pads", "DirectConv", (2, 1, 4, 136), (4, 1, 3, 5), False, {}),
    ("depthwise", "DepthwiseConv", (1, 5, 8, 9), (5, 1, 3, 3), True, {"group": 5, "pads": [1, 1, 1, 1]}),
    ("depthwise-strides", "DepthwiseConv", (1, 5, 9, 11), (5, 1, 5, 5), True, {"group": 5, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    ("depthwise-dilations", "DepthwiseConv", (2, 4, 8, 8), (4, 1, 3, 3), False, {"group": 4, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ("depthwise-multiplier", "Im2col", (1, 3, 8, 8), (6, 1, 3, 3), True, {"group": 3, "pads": [1, 1, 1, 1]}),
]:
    @case(name, plan)
    def _(m, shape=shape, weights=weights, bias=bias, attributes=attributes):
        inputs = [m.x(*shape), m.w(*weights)] + ([m.w(weights[0])] if bias else [])
        m.give("Conv", inputs, **attributes)

for name, shape, weights, attributes in [
    ("deconv", (1, 3, 5, 4), (3, 4, 2, 2), {"strides": [2, 2]}),
    ("deconv-overlap", (1, 3, 5, 4), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("deconv-output-padding", (1, 3, 5, 4), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("deconv-dilations", (1, 2, 5, 4), (2, 3, 3, 2), {"dilations": [2, 1]}),
    ("deconv-batch", (2, 2, 4, 4), (2, 3, 3, 3), {"strides": [1, 2], "pads": [1, 0, 0, 1]}),
    ("deconv-same", (1, 3, 5, 4), (3, 4, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("deconv-groups", (1, 4, 4, 4), (4, 2, 3, 3), {"group": 2, "strides": [2, 2]}),
]:
    @case(name, "Col2Im MatMul")
    def _(m, shape=shape, weights=weights, attributes=attributes):
        channels = weights[1] * attributes.get("group", 1)
        m.give("ConvTranspose", [m.x(*shape), m.w(*weights), m.w(channels)], **attributes)

for name, plan, shape, kind, attributes in [
    ("average-pool", "AveragePool", (1, 3, 8, 9), "AveragePool", {"kernel_shape": [3, 2], "strides": [2, 2]}),
    ("average-pool-pads", "AveragePool", (1, 3, 8, 9), "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("average-pool-counted", "AveragePool", (1, 3, 8, 9), "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("average-pool-uneven", "AveragePool", (2, 2, 7, 7), "AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]}),
    ("average-pool-ceil", "AveragePool", (1, 2, 8, 8), "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("average-pool-same", "AveragePool", (1, 2, 8, 7), "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("max-pool", "MaxPool", (1, 3, 8, 9), "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("max-pool-pads", "MaxPool", (1, 3, 8, 9), "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("max-pool-same-lower", "MaxPool", (1, 2, 8, 7), "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("average-pool-ceil-pads", "AveragePool", (1, 2, 8, 7), "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("max-pool-dilations", "MaxPool", (2, 2, 9, 9), "MaxPool", {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    ("max-pool-ceil", "MaxPool", (1, 2, 8, 8), "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("global-average-pool", "Reduce", (2, 3, 4, 5), "GlobalAveragePool", {}),
    ("global-max-pool", "Reduce", (2, 3, 4, 5), "GlobalMaxPool", {}),
]:
    @case(name, plan)
    def _(m, shape=shape, kind=kind, attributes=attributes):
        # Negative values everywhere: padding must not win.
        m.give(kind, [m.feed("x", m.normal(*shape) - 3)], **attributes)


# Products.


@case("matmul", "MatMul Prepack")
def _(m):
    m.give("MatMul", [m.x(5, 7), m.w(7, 6)])


@case("matmul-batch", "MatMul Prepack")
def _(m):
    m.give("MatMul", [m.x(2, 3, 5, 7), m.x(2, 3, 7, 4, name="z")])


@case("matmul-broadcast", "MatMul Prepack")
def _(m):
    m.give("MatMul", [m.x(2, 3, 5, 7), m.x(1, 3, 7, 4, name="z")])


@case("matmul-rank", "MatMul Prepack")
def _(m):
    m.give("MatMul", [m.x(2, 3, 7), m.w(7, 4)])


@case("matmul-vector", "MatMul Prepack")
def _(m):
    m.give("MatMul", [m.x(1, 17), m.w(17, 40)])


@case("matmul-batch-of-weights", "MatMul Prepack Panels")
def _(m):
    m.give("MatMul", [m.x(3, 5, 7), m.w(3, 7, 4)])


@case("matmul-transposed", "MatMul Prepack")
def _(m):
    x = m.op("Transpose", [m.x(2, 5, 3, 4)], perm=[0, 2, 1, 3])
    z = m.op("Transpose", [m.x(2, 6, 3, 4, name="z")], perm=[0, 2, 3, 1])
    m.give("MatMul", [x, z])


for ta, tb in [(0, 0), (0, 1), (1, 0), (1, 1)]:
    @case(f"gemm-{ta}{tb}", "MatMul")
    def _(m, ta=ta, tb=tb):
        x, w = m.x(*((7, 5) if ta else (5, 7))), m.w(*((6, 7) if tb else (7, 6)))
        m.give("Gemm", [x, w, m.w(6)], transA=ta, transB=tb, alpha=0.5, beta=2.0)


@case("gemm-plain", "MatMul")
def _(m):
    x = m.x(5, 7)
    m.give("Gemm", [x, m.w(7, 6)])
    m.give("Gemm", [x, m.w(7, 6), m.w(5, 6)])
    m.give("Gemm", [x, m.w(7, 6), m.w(5, 1)], beta=0.5)


@case("einsum", "MatMul")
def _(m):
    m.give("Einsum", [m.x(2, 3, 4), m.x(2, 4, 5, name="z")], equation="bik,bkj->bij")


# What is fused into a product.


@case("fused-activations", "MatMul")
def _(m):
    x = m.x(6, 7)
    m.give("Relu", [m.op("MatMul", [x, m.w(7, 5)])])
    m.give("LeakyRelu", [m.op("MatMul", [x, m.w(7, 5)])], alpha=0.2)
    low, high = (m.weight(name, np.float32(v)) for name, v in [("low", -0.5), ("high", 0.75)])
    m.give("Clip", [m.op("MatMul", [x, m.w(7, 5)]), low, high])


@case("fused-operands", "MatMul")
def _(m):
    x, scalar = m.x(6, 7), m.weight("scalar", np.float32(1.5))
    product = lambda: m.op("MatMul", [x, m.w(7, 5)])
    m.give("Mul", [product(), scalar])
    m.give("Sub", [scalar, product()])
    m.give("Add", [product(), m.w(5)])
    m.give("Mul", [product(), m.w(6, 1)])
    m.give("Sub", [product(), m.w(1, 5)])
    m.give("Max", [product(), m.w(6, 1)])
    m.give("Min", [product(), m.w(5)])
    m.give("Add", [product(), m.x(6, 5, name="z")])


@case("fused-conv", "MatMul Im2col")
def _(m):
    x = m.x(1, 3, 6, 6)
    conv = lambda: m.op("Conv", [x, m.w(4, 3, 3, 3), m.w(4)], pads=[1, 1, 1, 1])
    m.give("Relu", [conv()])
    m.give("Mul", [conv(), m.w(1, 4, 1, 1)])
    m.give("Add", [conv(), m.x(1, 4, 6, 6, name="z")])
    m.give("Relu", [m.op("Add", [conv(), conv()])])


# Element by element.


@case("unary", "Unary")
def _(m):
    x = m.x(3, 5)
    for kind in "Abs Exp Neg Tanh Erf Sigmoid HardSwish".split():
        m.give(kind, [x], out=kind)
    positive = m.feed("positive", np.abs(m.normal(3, 5)) + np.float32(0.1))
    for kind in "Log Sqrt Reciprocal".split():
        m.give(kind, [positive], out=kind)
    m.give("Reciprocal", [m.op("Sqrt", [positive])], out="Rsqrt")
    m.give("Mul", [x, x], out="Square")
    two = m.weight("two", np.float32(2))
    m.give("Pow", [x, two], out="Square2")


@case("silu", "Unary")
def _(m):
    x = m.x(3, 17)
    m.give("Mul", [x, m.op("Sigmoid", [x])])


@case("gelu", "Unary")
def _(m):
    x = m.x(3, 17)
    one, half, root = (m.weight(n, np.float32(v)) for n, v in [("one", 1), ("half", 0.5), ("root", np.sqrt(2))])
    e = m.op("Add", [m.op("Erf", [m.op("Div", [x, root])]), one])
    m.give("Mul", [m.op("Mul", [x, e]), half])


@case("gelu-operator", "Unary", opset=20)
def _(m):
    m.give("Gelu", [m.x(3, 17)])


for kind in ["HardSigmoid", "Softplus", "Softsign", "Mish"]:
    @case(kind.lower(), "Chain", opset=18)
    def _(m, kind=kind):
        m.give(kind, [m.x(3, 17)])


@case("relu", "Chain")
def _(m):
    x = m.x(3, 17)
    m.give("Relu", [x])
    low, high = (m.weight(name, np.float32(v)) for name, v in [("low", -0.5), ("high", 0.75)])
    m.give("Clip", [x, low, high])

BINARY = "Add Sub Mul Div Pow Min Max".split()


def binary(m, x, z, kinds=BINARY):
    for kind in kinds:
        m.give(kind, [x, z], out=kind)


def positive(m, name, *shape):
    return m.feed(name, np.abs(m.normal(*shape)) + np.float32(0.5))


@case("binary", "Binary")
def _(m):
    binary(m, positive(m, "x", 2, 3, 4), positive(m, "z", 2, 3, 4))


@case("binary-scalar", "Binary")
def _(m):
    kinds = [kind for kind in BINARY if kind != "Pow"]
    binary(m, positive(m, "x", 2, 3, 4), m.weight("scalar", np.float32(1.75)), kinds)


@case("binary-of-scalar", "Binary")
def _(m):
    binary(m, m.weight("scalar", np.float32(1.75)), positive(m, "x", 2, 3, 4))


@case("binary-rows", "Binary")
def _(m):
    binary(m, positive(m, "x", 2, 3, 4), positive(m, "z", 4))


@case("binary-of-rows", "Binary")
def _(m):
    binary(m, positive(m, "z", 3, 4), positive(m, "x", 2, 3, 4))


@case("binary-columns", "Binary")
def _(m):
    binary(m, positive(m, "x", 2, 3, 4), positive(m, "z", 2, 3, 1))


@case("binary-channels", "Binary")
def _(m):
    binary(m, positive(m, "x", 2, 3, 2, 2), positive(m, "z", 1, 3, 1, 1))


@case("binary-outer", "Binary")
def _(m):
    binary(m, positive(m, "x", 3, 1), positive(m, "z", 1, 4))


@case("chain", "Chain")
def _(m):
    # Scale, shift and clamp of a batch normalization: one pass.
    y = m.op("Mul", [m.x(2, 16, 5, 4), m.w(1, 16, 1, 1)])
    m.give("Relu", [m.op("Add", [y, m.w(1, 16, 1, 1)])])


@case("batch-normalization", "Binary")
def _(m):
    variance = m.weight("variance", np.abs(m.normal(3)) + np.float32(0.5))
    m.give("BatchNormalization", [m.x(2, 3, 4, 4), m.w(3), m.w(3), m.w(3), variance])

COMPARISONS = "Equal Less LessOrEqual Greater GreaterOrEqual".split()


def compare(m, x, z):
    for kind in COMPARISONS:
        m.give("Cast", [m.op(kind, [x, z])], out=kind, to=TensorProto.FLOAT)


@case("compare", "Compare Cast")
def _(m):
    values = m.random.randint(-2, 3, (2, 3, 8)).astype(np.float32)
    compare(m, m.feed("x", values[0]), m.feed("z", values[1]))


@case("compare-broadcast", "Compare Cast")
def _(m):
    values = m.random.randint(-2, 3, (3, 8))
    compare(m, m.feed("x", values), m.feed("z", values[:1, :]))


@case("compare-scalar", "Compare Cast")
def _(m):
    compare(m, m.feed("x", m.random.randint(-2, 3, (3, 8)).astype(np.int32)), m.weight("one", np.int32(1)))


@case("compare-bool", "Compare")
def _(m):
    m.give("Less", [m.x(3, 4), m.w(3, 4)])


# Reductions.


@case("reduce", "Reduce")
def _(m):
    m.x(2, 3, 4, 5)
    near_one = m.feed("near_one", 1 + m.normal(2, 3, 4, 5, scale=0.1))
    for kind in "ReduceMax ReduceMin ReduceProd ReduceMean".split():
        x = near_one if kind == "ReduceProd" else "x"
        m.give(kind, [x], out=f"{kind}_inner", axes=[1, 2])
        m.give(kind, [x], out=f"{kind}_last", axes=[-1], keepdims=0)
        m.give(kind, [x], out=f"{kind}_all")
    m.give("ReduceSum", ["x", m.ints("axes", [1, 3])], out="ReduceSum", keepdims=0)
    m.give("ReduceSumSquare", ["x"], out="ReduceSumSquare", axes=[2])
    m.give("ReduceL2", ["x"], out="ReduceL2", axes=[1])


@case("reduce-l1", "Reduce")
def _(m):
    m.give("ReduceL1", [m.x(2, 3, 4)], axes=[1])


@case("reduce-log-sum", "Reduce")
def _(m):
    m.give("ReduceLogSumExp", [m.x(2, 3, 4)], axes=[1])


@case("arg", "Reduce")
def _(m):
    # Equal values: the first counts.
    x = m.feed("x", m.random.randint(-3, 4, (3, 4, 6)).astype(np.float32))
    for kind in ("ArgMax", "ArgMin"):
        m.give(kind, [x], out=f"{kind}_last", axis=-1, keepdims=0)
        m.give(kind, [x], out=f"{kind}_inner", axis=1)


@case("softmax", "Softmax")
def _(m):
    x = m.x(2, 3, 4, 5, scale=3.0)
    m.give("Softmax", [x], axis=-1)
    m.give("Softmax", [x], axis=1)
    m.give("Softmax", [x], axis=0)


@case("log-softmax", "Softmax Unary")
def _(m):
    m.give("LogSoftmax", [m.x(3, 7)], axis=-1)


@case("softmax-old", "Softmax", opset=11)
def _(m):
    m.give("Softmax", [m.x(2, 3, 4)], axis=1)


@case("layer-normalization", "RmsNorm")
def _(m):
    m.give("LayerNormalization", [m.x(2, 5, 16), m.w(16), m.w(16)], axis=-1, epsilon=1e-5)


@case("layer-normalization-parts", "Reduce RmsNorm")
def _(m):
    x, epsilon, two = m.x(2, 5, 16), m.weight("epsilon", np.float32(1e-5)), m.weight("two", np.float32(2))
    centred = m.op("Sub", [x, m.op("ReduceMean", [x], axes=[-1])])
    variance = m.op("ReduceMean", [m.op("Pow", [centred, two])], axes=[-1])
    y = m.op("Div", [centred, m.op("Sqrt", [m.op("Add", [variance, epsilon])])])
    m.give("Add", [m.op("Mul", [y, m.w(16)]), m.w(16)])


@case("rms-norm", "RmsNorm")
def _(m):
    x, epsilon, two = m.x(2, 5, 16), m.weight("epsilon", np.float32(1e-5)), m.weight("two", np.float32(2))
    mean = m.op("ReduceMean", [m.op("Pow", [x, two])], axes=[-1])
    scale = m.op("Reciprocal", [m.op("Sqrt", [m.op("Add", [mean, epsilon])])])
    m.give("Mul", [x, scale])


@case("instance-normalization", "Binary Reduce")
def _(m):
    m.give("InstanceNormalization", [m.x(1, 3, 5, 5), m.w(3), m.w(3)])

# Moves.


@case("transpose", "MoveAxis")
def _(m):
    x = m.x(2, 3, 4, 5)
    for perm in ([0, 2, 3, 1], [3, 0, 1, 2], [3, 2, 1, 0], [1, 0, 3, 2]):
        m.give("Transpose", [x], perm=perm)


@case("transpose-ints", "MoveAxis")
def _(m):
    m.give("Transpose", [m.feed("x", m.random.randint(-9, 9, (3, 4, 5)))], perm=[2, 0, 1])


@case("reshape", "Reshape")
def _(m):
    x = m.x(2, 3, 4)
    m.give("Reshape", [x, m.ints("shape", [4, -1])])
    m.give("Flatten", [x], axis=2)
    m.give("Unsqueeze", [x, m.ints("axes", [1, 3])])
    m.give("Squeeze", [m.op("ReduceMax", [x], axes=[1]), m.ints("squeezed", [1])])


@case("slice", "Slice")
def _(m):
    x = m.x(4, 9, 10)
    for i, (starts, ends, axes, steps) in enumerate([
        ([1], [3], [0], [1]), ([-5], [9], [1], [1]), ([1, 2], [4, 9], [0, 2], [1, 1]),
        ([0], [10], [2], [2]), ([1], [9], [1], [3]), ([3], [10], [2], [4]),
    ]):
        parts = [m.ints(f"{what}{i}", v) for what, v in zip("seat", (starts, ends, axes, steps))]
        m.give("Slice", [x, *parts])


@case("slice-before-the-end", "Slice")
def _(m):
    m.give("Slice", [m.x(3, 12), m.ints("s", [1]), m.ints("e", [8]), m.ints("a", [1]), m.ints("t", [2])])


@case("split", "Slice")
def _(m):
    for name in "ab":
        m.outputs.append(name)
    m.nodes.append(helper.make_node("Split", [m.x(2, 7, 3), m.ints("sizes", [3, 4])], ["a", "b"], name="Split", axis=1))


@case("concat", "Concat")
def _(m):
    x, z, w = m.x(2, 3, 4), m.x(2, 1, 4, name="z"), m.w(2, 2, 4)
    m.give("Concat", [x, z, w, x], axis=1)
    m.give("Concat", [x, x], axis=-1)


@case("concat-ints", "Concat")
def _(m):
    m.give("Concat", [m.feed("x", m.random.randint(-9, 9, (2, 3))), m.ints("w", [[1], [2]])], axis=1)


for mode in ["constant", "reflect", "edge"]:
    @case(f"pad-{mode}", "Pad")
    def _(m, mode=mode):
        x = m.x(2, 4, 5)
        value = [m.weight("value", np.float32(-1.5))] if mode == "constant" else []
        m.give("Pad", [x, m.ints("pads", [0, 1, 2, 0, 3, 4]), *value], mode=mode)
        m.give("Pad", [x, m.ints("after", [0, 0, 0, 0, 0, 3])], mode=mode)


@case("resize-nearest", "Upsample")
def _(m):
    scales = m.weight("scales", np.float32([1, 1, 2, 2]))
    m.give("Resize", [m.x(1, 3, 4, 5), "", scales], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")


@case("resize-nearest-uneven", "Upsample")
def _(m):
    scales = m.weight("scales", np.float32([1, 1, 3, 2]))
    m.give("Resize", [m.x(2, 2, 3, 4), "", scales], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")


@case("resize-half-pixel", "Upsample")
def _(m):
    scales = m.weight("scales", np.float32([1, 1, 2, 2]))
    m.give("Resize", [m.x(1, 3, 4, 5), "", scales], mode="nearest")


@case("depth-to-space", "MoveAxis")
def _(m):
    m.give("DepthToSpace", [m.x(1, 8, 3, 4)], blocksize=2)


@case("expand", "Expand")
def _(m):
    m.give("Expand", [m.x(3, 1, 4), m.ints("shape", [2, 3, 5, 4])])
    m.give("Expand", [m.feed("i", m.random.randint(-9, 9, (1, 4))), m.ints("rows", [3, 4])])


@case("gather", "Gather")
def _(m):
    x, i = m.op("Tanh", [m.x(5, 4, 3)]), m.feed("i", np.array([[0, -1], [2, 3]]))
    m.give("Gather", [x, i], axis=1)
    m.give("Gather", [x, m.feed("j", np.array([4, 0, -5]))], axis=0)
    m.give("Gather", [x, m.ints("last", [2, 0])], axis=2)


@case("gather-scalar", "Gather")
def _(m):
    m.give("Gather", [m.op("Tanh", [m.x(5, 4, 3)]), m.ints("one", -1)], axis=1)


@case("gather-rows", "GatherRows")
def _(m):
    m.give("Gather", [m.w(9, 6), m.feed("i", np.array([[3, 0, 8], [-1, 3, -9]]))])


@case("gather-rows-i32", "GatherRows Cast")
def _(m):
    m.give("Gather", [m.w(9, 6), m.feed("i", np.array([3, 0, 8], np.int32))])


@case("cast", "Cast")
def _(m):
    # Whole and half numbers, of both signs: casting to integers truncates.
    x = m.feed("x", np.float32([[-2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.5, 7.75]]))
    i, j = m.feed("i", np.array([-3, 0, 5, 1 << 20])), m.feed("j", np.array([-3, 0, 5, 1 << 20], np.int32))
    for name, to in [("i64", TensorProto.INT64), ("i32", TensorProto.INT32), ("bool", TensorProto.BOOL)]:
        m.give("Cast", [x], out=f"x_{name}", to=to)
    m.give("Cast", [i], out="i_f32", to=TensorProto.FLOAT)
    m.give("Cast", [i], out="i_i32", to=TensorProto.INT32)
    m.give("Cast", [j], out="j_i64", to=TensorProto.INT64)
    m.give("Cast", [j], out="j_f32", to=TensorProto.FLOAT)


@case("cast-u8", "Cast")
def _(m):
    u = m.feed("u", np.array([0, 3, 255], np.uint8))
    m.give("Cast", [u], to=TensorProto.FLOAT)


@case("cast-i8", "Cast")
def _(m):
    m.give("Cast", [m.feed("s", np.array([-128, 3, 127], np.int8))], to=TensorProto.FLOAT)


@case("cast-bool", "Cast")
def _(m):
    m.give("Cast", [m.feed("b", np.array([True, False]))], to=TensorProto.FLOAT)


@case("cast-f16", "Cast")
def _(m):
    m.give("Cast", [m.op("Cast", [m.x(3, 4)], to=TensorProto.FLOAT16)], to=TensorProto.FLOAT)


@case("constant", "Constant")
def _(m):
    m.give("Add", [m.x(3, 4), m.w(3, 4)])


# Recurrence.


def recurrent(m, kind, gates, steps, direction, batch=1, inputs=3, hidden=4, state=True, fed=False):
    directions = 2 if direction == "bidirectional" else 1
    shape = directions, gates * hidden
    weights = m.x(*shape, inputs, scale=0.5, name="w") if fed else m.w(*shape, inputs)
    operands = [m.x(steps, batch, inputs), weights, m.w(*shape, hidden), m.w(directions, 2 * gates * hidden)]
    if state:
        operands += ["", m.x(directions, batch, hidden, name="h")]
        operands += [m.x(directions, batch, hidden, name="c")] if kind == "LSTM" else []
    outs = ["y", "y_h"] + (["y_c"] if kind == "LSTM" else [])
    m.outputs += outs
    m.nodes.append(helper.make_node(kind, operands, outs, name=kind, hidden_size=hidden, direction=direction))


for name, plan, kind, gates, steps, direction, options in [
    ("lstm", "Scan", "LSTM", 4, 5, "forward", {}),
    ("lstm-reverse", "Scan", "LSTM", 4, 5, "reverse", {}),
    ("lstm-bidirectional", "Scan Concat", "LSTM", 4, 5, "bidirectional", {}),
    ("lstm-batch", "Scan", "LSTM", 4, 4, "forward", {"batch": 3}),
    ("lstm-no-state", "Scan", "LSTM", 4, 4, "forward", {"state": False}),
    ("lstm-fed-weights", "Scan", "LSTM", 4, 4, "forward", {"fed": True}),
    ("lstm-one-step", "LstmCell", "LSTM", 4, 1, "forward", {}),
    ("rnn", "Scan", "RNN", 1, 5, "forward", {}),
    ("rnn-reverse", "Scan", "RNN", 1, 5, "reverse", {}),
]:
    @case(name, plan)
    def _(m, kind=kind, gates=gates, steps=steps, direction=direction, options=options):
        recurrent(m, kind, gates, steps, direction, **options)
