"""A small network of convolutions in bytes, computed here in whole numbers by the formulas of docs/quantization.md.

`int8/network.onnx` is in f32; `int8/network.calibration.npz` holds the samples that its ranges are taken from. `int8/quantized.onnx` is
the same network as it comes quantized, its ranges in the file. `int8/<name>.npz` holds `in.<input>` and, as `out.<output>`, what a pack
with `--compute int8` has to give. ONNX Runtime computes the f32 values that ranges are measured on, and nothing else. A byte that is
another one anywhere shows: a step is 1/127 of a range.
"""

import numpy as np
import onnx

from ops.model import OPSET, Model

BINS = 2048
MOST = 127
SUM_LIMIT = 258
SAMPLES = 4
# Of the largest value: what roundings of eight and of seven bits add up to over seven layers.
NEAR = 0.1
F32 = np.float32


def seven_bits(values):
    """Scale and zero of what takes `values`: the part of their range, 0 staying where it is, that rounds and cuts off least."""
    least, most = F32(values.min()), F32(values.max())
    bins = ((values - least) * (F32(BINS) / (most - least))).astype(np.int64).clip(0, BINS - 1)
    counts = np.bincount(bins.ravel(), minlength=BINS).astype(np.float64)
    middles = float(least) + (np.arange(BINS) + 0.5) * (float(most) - float(least)) / BINS

    def lost(part):
        low, high = min(float(least), 0.0) * part, max(float(most), 0.0) * part
        beyond = middles - middles.clip(low, high)
        return float((counts * (((high - low) / MOST) ** 2 / 12 + beyond**2)).sum())

    part = F32(min((p / 40 for p in range(4, 41)), key=lost))
    return of_range(least * part, most * part)


def of_range(least, most):
    """Scale and zero of what reaches from `least` to `most`."""
    least, most = float(min(least, F32(0))), float(max(most, F32(0)))
    scale = (most - least) / MOST
    return F32(scale), int(np.rint(-least / scale))


def shift(values, scale, zero):
    """What rounding and cutting off add to each channel of `values`, `[N, C, H, W]`, on average."""
    values, scale = values.astype(np.float64), float(scale)
    q = np.rint(values / scale + zero).clip(0, MOST)
    return ((q - zero) * scale - values).mean(axis=(0, 2, 3))


def up_to_16_bits(value):
    fraction, exponent = np.frexp(float(value))
    return F32(np.ldexp(np.ceil(fraction * 2**16) / 2**16, exponent))


def filters(weights, groups):
    """Whole numbers and scales of `[O, values]`: the least scale that the sums of each group and sign fit with."""
    numbers, scales = [], []
    for row in weights:
        scale = up_to_16_bits(np.abs(row).max() / F32(MOST))
        while True:
            q = np.rint(row / scale).astype(np.int64)
            sums = [np.bincount(groups, np.where(sign * q > 0, abs(q), 0)) for sign in (1, -1)]
            most = max(s.max() for s in sums)
            if most <= SUM_LIMIT:
                break
            scale = up_to_16_bits(scale * F32(F32(most) / F32(SUM_LIMIT)))
        numbers.append(q)
        scales.append(scale)
    return np.array(numbers), np.array(scales, F32)


def window_groups(channels, kernel, given):
    """Which weights of a filter are summed up in 16 bits: bytes 0, 1, 4, 5 and 2, 3, 6, 7 of every eight along a window's row.
    A position of an image has a multiple of 16 bytes, of the model's own input four."""
    pixel = 4 if given and channels <= 4 else -(-channels // 16) * 16
    row = -(-kernel[1] * pixel // 8) * 8
    c, y, x = np.meshgrid(np.arange(channels), np.arange(kernel[0]), np.arange(kernel[1]), indexing="ij")
    byte = y * row + x * pixel + c
    return (byte // 8 * 2 + byte % 4 // 2).ravel()


def tap_groups(taps):
    """Of depthwise filters: the first four of ten taps, and the others."""
    tap = np.arange(taps)
    return tap // 10 * 2 + (tap % 10 >= 4)


def windows(image, kernel, strides, pads, fill):
    """`[C, H, W]` as `[C, kh * kw, oh, ow]`."""
    (top, left), (kh, kw) = pads[:2], kernel
    padded = np.pad(image, ((0, 0), (top, pads[2]), (left, pads[3])), constant_values=fill)
    oh = (padded.shape[1] - kh) // strides[0] + 1
    ow = (padded.shape[2] - kw) // strides[1] + 1
    taps = [padded[:, y : y + oh * strides[0] : strides[0], x : x + ow * strides[1] : strides[1]][:, :oh, :ow]
            for y in range(kh) for x in range(kw)]
    return np.stack(taps, axis=1)


class Bytes:
    """An image `[C, H, W]` of bytes."""

    def __init__(self, q, scale, zero):
        self.q, self.scale, self.zero = q.astype(np.int64), F32(scale), zero

    def floats(self):
        return (self.q.astype(F32) - F32(self.zero)) * self.scale


def quantize(image, scale, zero):
    inverse = F32(1) / scale
    q = np.rint(np.clip(image * inverse + F32(zero), F32(0), F32(MOST)))
    return Bytes(q, scale, zero)


class Network(Model):
    """Builds the model, and beside each node how it is done in bytes."""

    def __init__(self, name):
        super().__init__(name, OPSET)
        self.steps = []

    def conv(self, x, count, channels, kernel, strides=(1, 1), pads=(0, 0, 0, 0), depthwise=False, then=None, add=None):
        """A convolution and what follows it; gives the name of the last value."""
        shape = (count, 1 if depthwise else channels, *kernel)
        w = (self.random.standard_normal(shape) * np.exp(self.random.standard_normal((count, 1, 1, 1)) / 2)).astype(F32)
        w *= F32(0.6 / np.sqrt(np.prod(shape[1:])))
        # Some filters' sums do not fit their first scale.
        w[::5] = np.sign(w[::5]) * np.abs(w[::5]).max(axis=(1, 2, 3), keepdims=True) * F32(0.9) + w[::5] * F32(0.1)
        b = (self.random.standard_normal(count) * 0.3).astype(F32)
        names = [x, self.weight(f"w{len(self.initializers)}", w), self.weight(f"b{len(self.initializers)}", b)]
        out = self.op("Conv", names, group=channels if depthwise else 1, strides=list(strides), pads=list(pads))
        if add:
            out = self.op("Add", [out, add])
        if then == "Relu6":
            out = self.op("Clip", [out, self.weight(f"c{len(self.initializers)}", F32(0)), self.weight(f"c{len(self.initializers)}", F32(6))])
        elif then:
            out = self.op(then, [out])
        self.steps.append(("conv", out, x, w, b, (kernel, strides, pads), depthwise, then, add))
        return out

    def pool(self, x, kernel, strides):
        out = self.op("MaxPool", [x], kernel_shape=list(kernel), strides=list(strides))
        self.steps.append(("pool", out, x, kernel, strides))
        return out


def convolution(step, images, to, shifts, given, limits):
    """One of the steps. `to`: scale and zero of what it gives, None for floats. `shifts`: of its input, where that was measured.
    `limits`: what the file holds it to."""
    _, _, x, w, b, (kernel, strides, pads), depthwise, then, add = step
    x, count = images[x], len(w)
    groups = tap_groups(w[0].size) if depthwise else window_groups(w.shape[1], kernel, given)
    q, scales = filters(w.reshape(count, -1), groups)
    seen = windows(x.q, kernel, strides, pads, x.zero)
    oh, ow = seen.shape[2:]
    if depthwise:
        sums = np.einsum("ct,ctyx->cyx", q, seen)
    else:
        sums = np.einsum("ok,kyx->oyx", q, seen.reshape(-1, oh, ow))
    if shifts is not None:
        means = (q * scales[:, None].astype(np.float64)).reshape(count, -1, kernel[0] * kernel[1]).sum(axis=2)
        b = b - (means[:, 0] * shifts if depthwise else means @ shifts).astype(F32)
    inner, zero = (1.0, 0.0) if to is None or then == "HardSwish" else (1 / float(to[0]), float(to[1]))
    each = scales.astype(np.float64) * float(x.scale)
    multiplier = (each * inner).astype(F32)
    bias = (b - each * q.sum(axis=1) * x.zero) * inner + zero
    factor = float(images[add].scale) * inner if add else 0.0
    bias = (bias - factor * images[add].zero if add else bias).astype(F32)
    y = sums.astype(F32) * multiplier[:, None, None] + bias[:, None, None]
    if add:
        y = y + images[add].q.astype(F32) * F32(factor)
    outer = (1.0, 0.0) if to is None else (1 / float(to[0]), float(to[1]))
    if then == "HardSwish":
        y = y * np.clip(y * F32(1 / 6) + F32(0.5), F32(0), F32(1)) * F32(outer[0]) + F32(outer[1])
    low = max({"Relu": 0.0, "Relu6": 0.0}.get(then, -np.inf), limits[0]) * outer[0] + outer[1]
    high = min(6.0 if then == "Relu6" else np.inf, limits[1]) * outer[0] + outer[1]
    if to is None:
        return np.clip(y, F32(low), F32(high))
    y = np.clip(y, F32(max(low, 0)), F32(min(high, MOST)))
    return Bytes(np.rint(y), *to)


def answer(steps, ranges, image, outputs, floats_only, shifts=None, limits=None):
    """The outputs, in whole numbers until they are given."""
    pools = [step[1] for step in steps if step[0] == "pool"]
    limits, shifts = limits or {}, shifts or {}
    images = {"x": quantize(image.clip(*limits.get("x", (-np.inf, np.inf))), *ranges["x"])}
    found = {}
    for step in steps:
        kind, out, x, *_ = step
        if kind == "pool":
            kernel, strides = step[3:]
            images[out] = Bytes(windows(images[x].q, kernel, strides, (0, 0, 0, 0), 0).max(axis=1), images[x].scale, images[x].zero)
        else:
            # What was pooled has the bytes of what was not, whose range is another.
            shift_of_x = None if x in pools else shifts.get(x)
            to = None if out in floats_only else ranges[out]
            images[out] = convolution(step, images, to, shift_of_x, x == "x", limits.get(out, (-np.inf, np.inf)))
        if out in floats_only:
            found[out] = images[out]
            continue
        if out in outputs:
            found[out] = images[out].floats()
    return {f"out.{name}": value[None] for name, value in found.items()}


def network():
    """All that convolutions in bytes can do: few channels, depthwise filters of one and of several groups, padding that is not 0,
    limits, a residual, a pool, HardSwish, values that leave as bytes and as floats."""
    m = Network("network")
    x = m.x(1, 3, 17, 14)
    a = m.conv(x, 20, 3, (3, 3), pads=(1, 1, 1, 1), then="Relu6")
    b = m.conv(a, 20, 20, (3, 3), (2, 2), (1, 1, 1, 1), depthwise=True, then="Relu6")
    c = m.conv(b, 36, 20, (1, 1))
    d = m.conv(c, 36, 36, (5, 5), pads=(2, 2, 2, 2), depthwise=True)
    e = m.conv(d, 36, 36, (3, 2), pads=(1, 0, 1, 1), add=c, then="Relu")
    f = m.pool(e, (2, 2), (1, 1))
    g = m.conv(f, 24, 36, (1, 1), then="HardSwish")
    h = m.conv(g, 9, 24, (2, 3), (2, 1))
    m.outputs += [g, h]
    return m, [g, h], [h]


def came_quantized(m, seen):
    """The network as a file that came quantized: each value of `seen` between a QuantizeLinear and a DequantizeLinear, from its least to
    its largest, and filters in int8. What a summand is held to is left out of the answer, as the packer does: it cuts off nothing here. The model, its steps with these filters, and what the file holds each value to."""
    model, steps, scales = m.finish(), [], {}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for step in m.steps:
        if step[0] == "conv":
            w = step[3]
            name = next(n.input[1] for n in m.nodes if n.op_type == "Conv" and np.array_equal(w, onnx.numpy_helper.to_array(stored[n.input[1]])))
            scale = np.array([up_to_16_bits(abs(row).max() / F32(MOST)) for row in w])
            q = np.rint(w / scale.reshape(-1, 1, 1, 1))
            stored[name].CopyFrom(onnx.numpy_helper.from_array(q.astype(np.int8), f"{name}.q"))
            model.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
            nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.scale"], [name], name=f"{name}.real", axis=0))
            step = (*step[:3], q.astype(F32) * scale.reshape(-1, 1, 1, 1), *step[4:])
        steps.append(step)
    for name, values in seen.items():
        least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale = F32((most - least) / 255)
        scales[name] = (scale, int(np.rint(-least / scale)))
    for step in m.steps:
        # A pool gives what it was given.
        if step[0] == "pool":
            scales[step[1]] = scales[step[2]]

    def pair(x, y):
        scale, zero = scales["x" if x == "x" else y]
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{y}.scale"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.uint8(zero), f"{y}.zero"))
        params = [f"{y}.scale", f"{y}.zero"]
        nodes.append(onnx.helper.make_node("QuantizeLinear", [x, *params], [f"{y}.q"], name=f"{y}.quantize"))
        nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{y}.q", *params], [y], name=f"{y}.dequantize"))

    pair("x", "x.real")
    for node in model.graph.node:
        node.input[:] = ["x.real" if name == "x" else name for name in node.input]
        nodes.append(node)
        (y,) = node.output
        if y in scales:
            node.output[0] = f"{y}.float"
            pair(node.output[0], y)
    graph = onnx.helper.make_graph(nodes, "quantized", model.graph.input, model.graph.output, model.graph.initializer)
    del model.graph.node[:]
    model.graph.CopyFrom(graph)
    onnx.checker.check_model(model)
    limits = {name: tuple(F32((q - zero) * float(scale)) for q in (0, 255)) for name, (scale, zero) in scales.items()}
    return model, steps, limits


def int8(files, run):
    """Writes the models, the calibration and the answers; `run` is ONNX Runtime on the bytes of a model."""
    m, outputs, floats_only = network()
    model = m.finish()
    plain = model.SerializeToString()
    calibration = m.normal(SAMPLES, 3, 17, 14)
    # Files have a pair before an Add, too.
    values = [step[1] for step in m.steps] + [node.input[0] for node in m.nodes if node.op_type == "Add"]
    for name in values:
        if name not in outputs:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    watched = model.SerializeToString()
    seen = [run(watched, {"x": sample[None]}) | {"x": sample[None]} for sample in calibration]
    seen = {name: np.concatenate([s[name] for s in seen]) for name in ["x", *values]}
    ranges = {name: seven_bits(value) for name, value in seen.items()}
    shifts = {name: shift(value, *ranges[name]) for name, value in seen.items()}
    assert all(ranges[step[1]] != ranges[step[2]] for step in m.steps if step[0] == "pool")
    image = m.feeds["x"]
    found = answer(m.steps, ranges, image[0], outputs, floats_only, shifts=shifts)
    files.data("int8/network.onnx", plain)
    files.arrays("int8/network.calibration.npz", {"x": calibration})
    files.arrays("int8/network.npz", {"in.x": image} | found)
    model, steps, limits = came_quantized(m, seen)
    ranges = {name: of_range(*both) for name, both in limits.items()}
    found = answer(steps, ranges, image[0], outputs, floats_only, limits=limits)
    # Eight bits and seven of the same ranges are the same network.
    for name, rounded in run(model.SerializeToString(), m.feeds).items():
        away = np.abs(rounded - found[f"out.{name}"]).max() / np.abs(rounded).max()
        assert away <= NEAR, (name, away)
    files.data("int8/quantized.onnx", model.SerializeToString())
    files.arrays("int8/quantized.npz", {"in.x": image} | found)
