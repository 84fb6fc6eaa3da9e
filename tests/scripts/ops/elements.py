"""Element by element: unary, binary, comparisons, casts."""

import numpy as np
from onnx import TensorProto

from .model import case


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


@case("where", "Where", opset=16)
def _(m):
    x, z = m.x(3, 4, 5), m.x(4, 1, name="z")
    m.give("Where", [m.op("Greater", [x, z]), x, z])
    m.give("Where", [m.op("Less", [z, x]), m.weight("low", np.float32(-1e4)), x])
    ids = m.feed("ids", np.array([[3], [-1], [7]], np.int64))
    m.give("Where", [m.op("Equal", [ids, m.weight("seven", np.array([7, 3]))]), ids, m.weight("one", np.array([1]))])
    m.give("Elu", [x], alpha=0.7)
    m.give("Selu", [x])
    m.give("ThresholdedRelu", [x], alpha=0.3)


@case("logic", "Logic Function", opset=16)
def _(m):
    x, z = m.x(3, 4), m.x(3, 1, name="z")
    low, high = (m.op("Less", [v, m.weight(f"{name}0", np.float32(0.1))]) for name, v in [("x", x), ("z", z)])
    for kind in "And Or Xor".split():
        m.give(kind, [low, high], out=kind)
    m.give("Not", [low])


@case("functions", "Function", opset=16)
def _(m):
    x = m.feed("x", np.array([[-2.5, -1.5, -0.5, 0.0, 0.5, 1.5], [2.5, 3.2, -3.7, 1e-3, 7.0, -0.2]], np.float32))
    for kind in "Ceil Floor Round Sign Cos Sin".split():
        m.give(kind, [x], out=kind)


@case("leaky-relu", "Binary", opset=16)
def _(m):
    x = m.x(3, 17)
    for alpha in [0.1, 1.0, 1.5, 0.0, -0.5]:
        m.give("LeakyRelu", [x], alpha=alpha)
    m.give("LeakyRelu", [x])
    m.give("PRelu", [x, m.w(17)])
    m.give("PRelu", [x, m.w(3, 1)])


@case("leaky-relu-conv", "BlockedConv", opset=16)
def _(m):
    x = m.op("Conv", [m.x(1, 9, 6, 7), m.w(12, 9, 3, 3)], pads=[1, 1, 1, 1])
    x = m.op("Conv", [m.op("LeakyRelu", [x], alpha=0.1), m.w(10, 12, 1, 1), m.w(10)])
    m.give("PRelu", [x, m.w(10, 1, 1)])


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


@case("is-nan", "Compare Function")
def _(m):
    m.give("IsNaN", [m.op("Sqrt", [m.feed("x", np.float32([[0.0, -1.0, 9.0, 1.5, -0.25]]))])])


@case("constant-bool", "Cast Compare Constant Logic")
def _(m):
    mask = m.weight("mask", m.random.randint(0, 2, (3, 4)).astype(bool))
    m.give("And", [m.op("Less", [m.x(3, 4), m.w(3, 4)]), mask])


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


@case("unused-input", "Source")
def _(m):
    m.x(3, name="unused")
    m.give("Relu", [m.x(3, 4)])


@case("constant", "Constant")
def _(m):
    m.give("Add", [m.x(3, 4), m.w(3, 4)])
