"""A model with channels that hardly matter, pruned by hand: numpy cuts them out and re-solves what is left, ONNX Runtime computes.

`pruned/blocks.onnx` is the model as it comes, `pruned/calib.npz` what it is calibrated on. `pruned/blocks.npz` holds `in.x` and
what ONNX Runtime gives for it: `float.y`, `cut.y` without the channels, and `restored.y` with weights fitted by the rule of
docs/quantization.md, which is written down twice, here and in shared/packer/src/prune.
"""

import numpy as np

from ops.model import OPSET, Model

WIDTH, WEAK = 24, 8
EPSILON = 1e-3


def weights(random):
    """Two blocks of 24 channels each, of which 8 are hardly read, behind a first layer that both of them are added to."""
    def normal(*shape):
        return (random.standard_normal(shape) * np.prod(shape[1:]) ** -0.5).astype(np.float32)

    w = {"stem.w": normal(16, 8), "stem.b": normal(16), "norm.gain": 1 + normal(16) / 8, "norm.shift": normal(16) / 4,
         "norm.mean": normal(16) / 8, "norm.variance": np.exp(normal(16) / 8), "depthwise": 1 + normal(WIDTH, 1) / 4}
    for block in "12":
        w |= {f"expand{block}.w": normal(WIDTH, 16), f"expand{block}.b": normal(WIDTH) / 8, f"project{block}.w": normal(16, WIDTH) * 2}
        weak = random.permutation(WIDTH)[:WEAK]
        w[f"project{block}.w"][:, weak] /= 128
        w[f"weak{block}"] = weak
    w["project2.b"] = normal(16)
    return {name: value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in w.items()}


def graph(w, x):
    """The model with these weights."""
    m = Model("blocks", OPSET)
    m.feed("x", x)

    def conv(x, name, **attributes):
        constants = [m.weight(name + ".w", w[name + ".w"][:, :, None, None])]
        constants += [m.weight(name + ".b", w[name + ".b"])] if name + ".b" in w else []
        return m.op("Conv", [x, *constants], **attributes)

    stem = conv("x", "stem")
    a = m.op("Relu", [conv(stem, "expand1")])
    kernel = m.weight("depthwise", w["depthwise"][:, :, None, None])
    a = m.op("Clip", [m.op("Conv", [a, kernel], group=len(w["depthwise"])), m.weight("low", np.float32(0)), m.weight("high", np.float32(3))])
    norm = [m.weight(f"norm.{name}", w[f"norm.{name}"]) for name in ("gain", "shift", "mean", "variance")]
    first = m.op("Add", [stem, m.op("BatchNormalization", [conv(a, "project1"), *norm], epsilon=EPSILON)])
    b = m.op("Relu", [conv(first, "expand2")])
    m.give("Add", [conv(b, "project2"), first], out="y")
    return m.finish()


def forward(w, x):
    """What layers take and give before their biases, `[rows, channels]` each, in f64; `first` is what the second block is added to."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    v = {"x": x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1]).astype(np.float64)}
    v["stem"] = v["x"] @ w["stem.w"].T + w["stem.b"]
    v["expand1"] = v["stem"] @ w["expand1.w"].T
    v["a"] = np.clip(np.maximum(v["expand1"] + w["expand1.b"], 0) * w["depthwise"].T, 0, 3)
    v["project1"] = v["a"] @ w["project1.w"].T
    scale = w["norm.gain"] / np.sqrt(w["norm.variance"] + EPSILON)
    v["first"] = v["stem"] + (v["project1"] + w.get("project1.b", 0) - w["norm.mean"]) * scale + w["norm.shift"]
    v["expand2"] = v["first"] @ w["expand2.w"].T
    v["b"] = np.maximum(v["expand2"] + w["expand2.b"], 0)
    v["project2"] = v["b"] @ w["project2.w"].T
    return v


def cut(w):
    """Without the weak channels: in the layer that gives them, in all that takes each by itself, and in the one that sums them up."""
    w = dict(w)
    for block in "12":
        kept = np.sort(np.setdiff1d(np.arange(WIDTH), w[f"weak{block}"]))
        of = [f"expand{block}.w", f"expand{block}.b", *(["depthwise"] if block == "1" else [])]
        w |= {name: w[name][kept] for name in of} | {f"project{block}.w": w[f"project{block}.w"][:, kept], f"kept{block}": kept}
    return w


def fit(w, name, x, wanted):
    """Least squares from the weights there are, `H` of few rows being drawn to its diagonal."""
    rows, depth = x.shape
    drawn = (depth / (depth + rows)) ** 2
    old = w[f"{name}.w"].astype(np.float64)
    centred, error = x - x.mean(0), wanted - x @ old.T
    h = centred.T @ centred / rows
    h = (1 - drawn) * h + drawn * np.diag(np.diag(h))
    new = old + (1 - drawn) * np.linalg.solve(h, centred.T @ (error - error.mean(0)) / rows).T
    bias = wanted.mean(0) - x.mean(0) @ new.T
    w[f"{name}.w"] = new.astype(np.float32)
    w[f"{name}.b"] = (w.get(f"{name}.b", np.zeros(len(bias))) + bias).astype(np.float32)


def restored(w, x):
    """Layer by layer, from the one behind the first channels that went: what the whole network gave, of what is there by then."""
    goal, found = forward(w, x), cut(w)
    fit(found, "project1", forward(found, x)["a"], goal["project1"])
    fit(found, "expand2", forward(found, x)["first"], goal["expand2"][:, found["kept2"]])
    v = forward(found, x)
    # What is wanted of the last one makes up for what it is added to.
    fit(found, "project2", v["b"], goal["project2"] + goal["first"] - v["first"])
    return found


def pruned(files, run):
    """Writes the model, what it is calibrated on, and answers; `run` is ONNX Runtime on the bytes of a model."""
    random = np.random.RandomState(5)
    w = weights(random)
    normal = lambda n: (np.rint(random.standard_normal((n, 8, 6, 6)) * 64) / 64).astype(np.float32)
    calibration, x = normal(64), normal(1)
    files.data("pruned/blocks.onnx", graph(w, x).SerializeToString())
    files.arrays("pruned/calib.npz", {"x": calibration})
    members = {"in.x": x}
    for name, found in ("float", w), ("cut", cut(w)), ("restored", restored(w, calibration)):
        members[f"{name}.y"] = run(graph(found, x).SerializeToString(), {"x": x})["y"]
    files.arrays("pruned/blocks.npz", members)
