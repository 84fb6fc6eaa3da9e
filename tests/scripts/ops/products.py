"""Matrix products and what is fused into them."""

import numpy as np

from .model import case


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
    m.give("MatMul", [m.x(1, 17), m.x(17, 40, name="z")])


@case("matmul-batch-of-weights", "MatMul Prepack Panels")
def _(m):
    m.give("MatMul", [m.x(3, 5, 7), m.w(3, 7, 4)])


@case("matmul-transposed", "MatMul Prepack")
def _(m):
    x = m.op("Transpose", [m.x(2, 5, 3, 4)], perm=[0, 2, 1, 3])
    z = m.op("Transpose", [m.x(2, 6, 3, 4, name="z")], perm=[0, 2, 3, 1])
    m.give("MatMul", [x, z])


@case("matmul-channels-first", "Dense")
def _(m):
    x = m.op("Transpose", [m.x(2, 24, 5)], perm=[0, 2, 1])
    y = m.op("Add", [m.op("MatMul", [x, m.w(24, 32)]), m.w(32)])
    m.give("Transpose", [y], perm=[0, 2, 1])
    m.give("Transpose", [m.op("MatMul", [x, m.w(24, 48)])], perm=[2, 0, 1])


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
    x = m.x(1, 3, 6)
    conv = lambda: m.op("Conv", [x, m.w(4, 3, 3), m.w(4)], pads=[1, 1])
    m.give("Relu", [conv()])
    m.give("Mul", [conv(), m.w(1, 4, 1)])
    m.give("Add", [conv(), m.x(1, 4, 6, name="z")])
    m.give("Relu", [m.op("Add", [conv(), conv()])])
