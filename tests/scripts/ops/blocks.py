"""Images with their channels in blocks: convolutions, what follows them, and what lies between them."""

import numpy as np

from .model import case


@case("conv-steps", "BlockedConv ConvStep::Scalar ConvStep::Tensor ConvStep::Unary")
def _(m):
    conv = lambda x, i, o: m.op("Conv", [x, m.w(o, i, 3, 3, scale=0.2), m.w(o)], pads=[1, 1, 1, 1])
    scaled = lambda x, o: m.op("Add", [m.op("Mul", [x, m.w(1, o, 1, 1)]), m.w(1, o, 1, 1)])
    a = m.op("Relu", [scaled(conv(m.x(1, 3, 7, 9), 3, 19), 19)])
    b = m.op("Add", [conv(a, 19, 19), a])
    c = m.op("Clip", [conv(b, 19, 8), m.w(), m.weight("six", np.float32(6))])
    d = m.op("HardSwish", [conv(c, 8, 20)])
    e = conv(d, 20, 9)
    m.give("Mul", [e, m.op("Sigmoid", [e])])
    m.give("Sigmoid", [conv(d, 20, 3)])
    m.give("Sub", [m.weight("one", np.float32(1)), conv(d, 20, 3)])
    m.give("Exp", [conv(d, 20, 3)])


@case("conv-steps-read-twice", "BlockedConv Chain")
def _(m):
    x = m.op("Conv", [m.x(1, 4, 6, 6), m.w(8, 4, 3, 3, scale=0.3), m.w(8)])
    m.give("Add", [m.op("Relu", [x]), m.op("Neg", [x])])
    m.give("Mul", [x, x])


@case("conv-hardswish-written-out", "BlockedConv ConvStep::Unary")
def _(m):
    x = m.op("Conv", [m.x(1, 4, 5, 6), m.w(10, 4, 3, 3), m.w(10)], pads=[1, 1, 1, 1])
    value = lambda name, v: m.weight(name, np.float32(v))
    gate = m.op("Clip", [m.op("Add", [x, value("three", 3)]), value("zero", 0), value("six", 6)])
    m.give("Div", [m.op("Mul", [x, gate]), value("divisor", 6)])


@case("conv-1x1-of-image", "BlockedConv")
def _(m):
    x = m.op("Relu", [m.op("Conv", [m.x(2, 3, 9, 8), m.w(20, 3, 3, 3, scale=0.3), m.w(20)], strides=[2, 2])])
    m.give("Conv", [x, m.w(33, 20, 1, 1), m.w(33)])
    m.give("Conv", [x, m.w(7, 20, 1, 1)], strides=[2, 2])
    m.give("Transpose", [m.op("Conv", [x, m.w(8, 20, 1, 1), m.w(8)])], perm=[0, 2, 3, 1])


@case("depthwise-steps", "BlockedDepthwiseConv ConvStep::Channel ConvStep::Unary")
def _(m):
    x = m.op("Conv", [m.x(1, 3, 30, 31), m.w(11, 3, 3, 3, scale=0.3), m.w(11)], pads=[1, 1, 1, 1])
    y = m.op("Conv", [x, m.w(11, 1, 5, 5), m.w(11)], group=11, pads=[2, 2, 2, 2])
    y = m.op("HardSwish", [m.op("Mul", [y, m.w(1, 11, 1, 1)])])
    m.give("Add", [m.op("Conv", [y, m.w(11, 1, 3, 3)], group=11, pads=[1, 1, 1, 1]), y])


@case("squeeze-and-excite", "BlockedConv Reduce Binary")
def _(m):
    x = m.op("Relu", [m.op("Conv", [m.x(1, 3, 8, 8), m.w(16, 3, 3, 3), m.w(16)], pads=[1, 1, 1, 1])])
    s = m.op("Relu", [m.op("Conv", [m.op("GlobalAveragePool", [x]), m.w(4, 16, 1, 1), m.w(4)])])
    s = m.op("HardSigmoid", [m.op("Conv", [s, m.w(16, 4, 1, 1), m.w(16)])], alpha=0.2)
    m.give("Conv", [m.op("Mul", [x, s]), m.w(5, 16, 1, 1), m.w(5)])
    m.give("GlobalMaxPool", [x])


@case("images-in-blocks", "BlockedConv MaxPool AveragePool Upsample Concat UnblockChannels BlockChannels")
def _(m):
    conv = lambda x, i, o: m.op("Conv", [x, m.w(o, i, 3, 3, scale=0.2), m.w(o)], pads=[1, 1, 1, 1])
    a = m.op("Relu", [conv(m.x(2, 5, 8, 12), 5, 16)])
    top = m.op("MaxPool", [a], kernel_shape=[2, 2], strides=[2, 2])
    mean = m.op("AveragePool", [a], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    scales = m.weight("scales", np.array([1, 1, 2, 2], np.float32))
    up = m.op("Resize", [top, "", scales], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    m.give("Conv", [m.op("Concat", [up, a], axis=1), m.w(3, 32, 1, 1)])
    m.give("Concat", [mean, top, conv(top, 16, 3)], axis=1)
    m.give("Concat", [mean, top], axis=2)


def large_images(m, images):
    """Convolved images that are larger than caches, from an input that is small."""
    scales = m.weight("scales", np.array([1, 1, 28, 28], np.float32))
    x = m.op("Resize", [m.x(images, 2, 8, 8), "", scales], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    return m.op("Relu", [m.op("Conv", [x, m.w(8, 2, 3, 3), m.w(8)], pads=[1, 1, 1, 1])])


@case("batch-by-image", "Scan BlockedConv MatMul")
def _(m):
    a = large_images(m, 5)
    b = m.op("Add", [m.op("Conv", [a, m.w(8, 8, 3, 3), m.w(8)], pads=[1, 1, 1, 1]), a])
    m.give("GlobalMaxPool", [b])
    features = m.op("Flatten", [m.op("GlobalMaxPool", [a])])
    logits = m.op("Gemm", [features, m.w(8, 20), m.w(20)])
    m.give("Softmax", [m.op("Gemm", [m.op("Relu", [logits]), m.w(20, 3), m.w(3)])])


# Not the same image by image: these two are planned as a whole.
@case("batch-softmax", "BlockedConv Softmax")
def _(m):
    m.give("GlobalMaxPool", [m.op("Softmax", [large_images(m, 5)], axis=0)])


@case("batch-mean", "BlockedConv Reduce")
def _(m):
    a = large_images(m, 5)
    m.give("GlobalMaxPool", [m.op("Sub", [a, m.op("ReduceMean", [a], axes=[0])])])
