"""What transformers are made of: products with what follows them, attention."""

import math

import numpy as np

from .model import case


def number(m, value):
    return m.weight(f"n{len(m.initializers)}", np.float32(value))


def gelu(m, y, out=None):
    erf = m.op("Erf", [m.op("Div", [y, number(m, math.sqrt(2))])])
    half = m.op("Mul", [y, number(m, 0.5)])
    return m.op("Mul", [half, m.op("Add", [erf, number(m, 1)])], out=out)


def gelu_tanh(m, y):
    cube = m.op("Mul", [y, m.op("Mul", [y, y])])
    inner = m.op("Add", [y, m.op("Mul", [cube, number(m, 0.044715)])])
    tanh = m.op("Tanh", [m.op("Mul", [number(m, math.sqrt(2 / math.pi)), inner])])
    return m.op("Mul", [y, m.op("Mul", [number(m, 0.5), m.op("Add", [number(m, 1), tanh])])])


@case("dense-activations", "Dense")
def _(m):
    x = m.x(13, 24)
    dense = lambda: m.op("Add", [m.op("MatMul", [x, m.w(24, 20)]), m.w(20)])
    m.give("Identity", [dense()])
    m.give("Relu", [dense()])
    m.give("Identity", [gelu(m, dense())])
    m.give("Identity", [gelu_tanh(m, dense())])
    y = dense()
    m.give("Mul", [y, m.op("Sigmoid", [y])])


@case("dense-residual", "Dense")
def _(m):
    x, z = m.x(2, 5, 24), m.x(2, 5, 20, name="z")
    product = lambda: m.op("MatMul", [x, m.w(24, 20)])
    m.give("Add", [m.op("Add", [product(), m.w(20)]), z])
    m.give("Add", [z, product()])
    m.give("Relu", [m.op("Add", [m.op("Add", [m.w(20), product()]), z])])
    m.give("Add", [m.op("Relu", [product()]), z])


for rows in [1, 2, 3, 4, 7, 200]:
    @case(f"dense-rows-{rows}", "Dense")
    def _(m, rows=rows):
        x = m.x(rows, 33)
        m.give("MatMul", [x, m.w(33, 8)])
        m.give("MatMul", [x, m.w(33, 70)])


@case("dense-depth", "Dense")
def _(m):
    m.give("MatMul", [m.x(9, 900), m.w(900, 24)])


@case("dense-gemm", "Dense")
def _(m):
    m.give("Gemm", [m.x(5, 17), m.w(30, 17), m.w(30)], transB=1)


@case("dense-axes", "Dense")
def _(m):
    m.give("Einsum", [m.x(2, 5, 3, 8), m.w(3, 8, 40)], equation="bshd,hdo->bso")


def attention(m, batch, rows, heads, width, mask=None, scale=None, keys=None):
    """Projections, heads taken apart, softmax, heads put together, a projection."""
    keys, size = keys or rows, heads * width
    sides = [m.x(batch, n, 24, name=f"x{i}") for i, n in enumerate([rows, keys, keys])]
    order = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]]
    taken = []
    for x, perm, n in zip(sides, order, [rows, keys, keys]):
        y = m.op("Add", [m.op("MatMul", [x, m.w(24, size)]), m.w(size)])
        y = m.op("Reshape", [y, m.weight(f"s{len(m.initializers)}", np.array([batch, n, heads, width]))])
        taken.append(m.op("Transpose", [y], perm=perm))
    scores = m.op("MatMul", taken[:2])
    if scale:
        scores = m.op("Div", [scores, number(m, scale)])
    if mask:
        scores = m.op("Add", [scores, m.x(*mask, name="mask", scale=3)])
    mixed = m.op("MatMul", [m.op("Softmax", [scores], axis=-1), taken[2]])
    together = m.op("Transpose", [mixed], perm=[0, 2, 1, 3])
    together = m.op("Reshape", [together, m.weight("together", np.array([batch, rows, size]))])
    m.give("MatMul", [together, m.w(size, 24)])


@case("attention", "Attention Dense")
def _(m):
    attention(m, 1, 9, 3, 16, mask=(1, 1, 1, 9), scale=4)


@case("attention-batch", "Attention Dense")
def _(m):
    attention(m, 3, 30, 2, 32, mask=(3, 1, 1, 30), scale=5.66)


@case("attention-mask", "Attention Dense")
def _(m):
    attention(m, 2, 5, 4, 16, mask=(1, 4, 5, 5))


@case("attention-plain", "Attention Dense")
def _(m):
    attention(m, 2, 17, 2, 48, keys=33)


@case("attention-causal", "Where")
def _(m):
    """A mask made of the model's own numbers, as decoders export it."""
    q, k, v = (m.x(1, 2, 9, 16, name=name) for name in "qkv")
    scores = m.op("MatMul", [q, m.op("Transpose", [k], perm=[0, 1, 3, 2])])
    seen = m.op("Greater", [m.feed("lengths", np.arange(9, dtype=np.int64).reshape(1, 1, 1, 9)), m.weight("last", np.array(6))])
    scores = m.op("Where", [seen, m.weight("never", np.float32(-1e9)), scores])
    m.give("MatMul", [m.op("Softmax", [scores], axis=-1), v])


def channels_last(m, x, channels, kernel, bias=True, **attributes):
    """A convolution along one axis of `[n, length, channels]`."""
    columns, rows = channels
    operands = [m.op("Transpose", [x], perm=[0, 2, 1]), m.w(columns, rows, kernel)] + ([m.w(columns)] if bias else [])
    return m.op("Transpose", [m.op("Conv", operands, **attributes)], perm=[0, 2, 1])


@case("conv-1d-last", "Dense")
def _(m):
    x = m.x(1, 40, 6)
    m.give("Identity", [channels_last(m, x, (24, 6), 5)])
    m.give("Identity", [gelu_tanh(m, channels_last(m, x, (20, 6), 4, strides=[3]))])


@case("conv-1d-last-pads", "Dense Pad")
def _(m):
    x = m.x(3, 9, 10)
    m.give("Relu", [channels_last(m, x, (16, 10), 3, pads=[1, 1])])
    m.give("Identity", [channels_last(m, x, (16, 10), 4, pads=[2, 0], strides=[2], bias=False)])


@case("one-hot", "OneHotRows")
def _(m):
    ids = m.feed("ids", np.array([[0, 1, 6, 7, 11, 12], [-1, 3, 3, 500, 2, 10]], np.int32))
    numbers = m.weight("numbers", np.arange(12, dtype=np.int32))
    rows = m.op("Equal", [m.op("Unsqueeze", [ids, m.weight("axes", np.array([2]))]), numbers])
    product = m.op("MatMul", [m.op("Cast", [rows], to=1), m.w(12, 19)])
    m.give("Identity", [gelu_tanh(m, m.op("Add", [product, m.w(19)]))])


@case("one-hot-plain", "OneHotRows")
def _(m):
    ids = m.feed("ids", np.array([5, 0, -7, 2, 6], np.int64))
    rows = m.op("Equal", [m.weight("numbers", np.arange(6).reshape(1, 6)), m.op("Unsqueeze", [ids, m.weight("axes", np.array([1]))])])
    m.give("Add", [m.w(8), m.op("MatMul", [m.op("Cast", [rows], to=1), m.w(6, 8)])])
