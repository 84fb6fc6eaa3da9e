"""What moves values about without computing."""

import numpy as np
from onnx import helper

from .model import case


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


@case("gather-nd", "Gather Reshape")
def _(m):
    x = m.op("Tanh", [m.x(5, 4, 3)])
    m.give("GatherND", [x, m.ints("places", [[[0, 3], [4, 1]], [[2, 1], [4, 0]]])])
    m.give("GatherND", [m.w(6, 5), m.ints("rows", [[2], [5], [0]])])
    m.give("GatherND", [m.op("Less", [x, m.w(1)]), m.ints("one", [[4, 3, 2]])])


@case("gather-rows", "GatherRows")
def _(m):
    m.give("Gather", [m.w(9, 6), m.feed("i", np.array([[3, 0, 8], [-1, 3, -9]]))])


@case("gather-rows-i32", "GatherRows Cast")
def _(m):
    m.give("Gather", [m.w(9, 6), m.feed("i", np.array([3, 0, 8], np.int32))])
