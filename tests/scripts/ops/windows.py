"""Convolutions and pools."""

from .model import case

# Convolutions: name, shape of x, shape of the weights, attributes.
for name, plan, shape, weights, bias, attributes in [
    ("conv-pads", "BlockedConv", (1, 3, 9, 8), (5, 3, 3, 3), True, {"pads": [1, 1, 1, 1]}),
    ("conv-pads-uneven", "BlockedConv", (1, 3, 9, 8), (5, 3, 3, 3), True, {"pads": [0, 1, 2, 1]}),
    ("conv-same-upper", "BlockedConv", (1, 3, 9, 8), (5, 3, 4, 3), True, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("conv-same-lower", "BlockedConv", (1, 3, 9, 8), (5, 3, 4, 3), True, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("conv-strides", "BlockedConv", (1, 3, 11, 10), (4, 3, 3, 2), True, {"strides": [2, 3]}),
    ("conv-dilations", "BlockedConv", (1, 2, 11, 12), (4, 2, 3, 3), True, {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ("conv-groups", "Im2col MatMul", (1, 4, 7, 7), (6, 2, 3, 3), True, {"group": 2, "pads": [1, 1, 1, 1]}),
    ("conv-no-bias", "BlockedConv", (1, 2, 6, 6), (3, 2, 3, 3), False, {}),
    ("conv-batch", "BlockedConv", (3, 2, 6, 5), (4, 2, 3, 3), True, {"pads": [1, 1, 1, 1]}),
    ("conv-1x1", "MatMul", (1, 6, 5, 4), (8, 6, 1, 1), True, {}),
    ("conv-1x1-strides", "MatMul", (1, 6, 7, 6), (8, 6, 1, 1), True, {"strides": [2, 2]}),
    ("conv-1d", "Im2col MatMul Panels", (1, 3, 17), (5, 3, 4), True, {"pads": [2, 1], "strides": [2]}),
    ("conv-1d-dilations", "Im2col MatMul", (2, 3, 17), (5, 3, 3), True, {"dilations": [3], "pads": [3, 3]}),
    ("conv-1d-groups", "Im2col MatMul", (1, 4, 12), (4, 2, 3), True, {"group": 2}),
    ("conv-1d-depthwise", "BlockedDepthwiseConv", (2, 5, 17), (5, 1, 4), True, {"group": 5, "pads": [2, 1], "strides": [2]}),
    ("conv-1d-depthwise-dilations", "BlockedDepthwiseConv", (1, 12, 20), (12, 1, 3), False, {"group": 12, "dilations": [2]}),
    ("conv-long-rows", "BlockedConv", (1, 2, 3, 130), (5, 2, 3, 3), True, {"pads": [1, 1, 1, 1]}),
    ("conv-long-rows-strides", "BlockedConv", (1, 2, 5, 260), (4, 2, 3, 3), True, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("conv-long-rows-no-pads", "BlockedConv", (2, 1, 4, 136), (4, 1, 3, 5), False, {}),
    ("depthwise", "BlockedDepthwiseConv", (1, 5, 8, 9), (5, 1, 3, 3), True, {"group": 5, "pads": [1, 1, 1, 1]}),
    ("depthwise-strides", "BlockedDepthwiseConv", (1, 5, 9, 11), (5, 1, 5, 5), True, {"group": 5, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    ("depthwise-dilations", "BlockedDepthwiseConv", (2, 4, 8, 8), (4, 1, 3, 3), False, {"group": 4, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
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
    ("deconv-1d", (1, 3, 9), (3, 4, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
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
    ("average-pool-1d", "AveragePool", (2, 3, 11), "AveragePool", {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ("max-pool-1d", "MaxPool", (2, 3, 11), "MaxPool", {"kernel_shape": [3], "dilations": [2], "pads": [1, 2]}),
    ("max-pool-ceil", "MaxPool", (1, 2, 8, 8), "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("global-average-pool", "Reduce", (2, 3, 4, 5), "GlobalAveragePool", {}),
    ("global-max-pool", "Reduce", (2, 3, 4, 5), "GlobalMaxPool", {}),
]:
    @case(name, plan)
    def _(m, shape=shape, kind=kind, attributes=attributes):
        # Negative values everywhere: padding must not win.
        m.give(kind, [m.feed("x", m.normal(*shape) - 3)], **attributes)
