"""Reductions and what is made of them."""

import numpy as np

from .model import case


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


@case("layer-normalization", "LayerNorm")
def _(m):
    m.give("LayerNormalization", [m.x(2, 5, 16), m.w(16), m.w(16)], axis=-1, epsilon=1e-5)


@case("layer-normalization-parts", "LayerNorm")
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
