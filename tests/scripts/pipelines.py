"""Reference tensors of image pipelines: a manifest's steps as Pillow and numpy carry them out."""

import numpy as np
from PIL import Image


def discs(height, width, count, seed):
    """A seeded, image-like picture: soft coloured discs over a gradient, u8[height,width,3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    image = np.stack([60 + 120 * x, 80 + 90 * y, 140 - 70 * x * y], axis=-1)
    for _ in range(count):
        cx, cy, radius = rng.random(), rng.random(), 0.03 + 0.17 * rng.random()
        colour = rng.integers(0, 256, size=3).astype(np.float32)
        cover = np.clip(0.5 - ((x - cx) ** 2 + (y - cy) ** 2 - radius**2) * 225, 0, 1)[..., None]
        image = image * (1 - cover) + colour * cover
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


# Steps as a manifest spells them, and what Pillow and numpy make of ../pipelines/picture.png with them.
PIPELINES = {
    "rgb": [{"op": "decode", "channels": "rgb"}, {"op": "scale", "factor": 1 / 255}],
    "bgr-nhwc": [{"op": "decode", "channels": "bgr"}, {"op": "layout", "order": "nhwc"}],
    "gray": [{"op": "decode", "channels": "gray"}],
    "normalize": [{"op": "decode"}, {"op": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}],
    "bilinear-down": [{"op": "decode"}, {"op": "resize", "size": [17, 20], "mode": "bilinear"}],
    "bilinear-up": [{"op": "decode"}, {"op": "resize", "size": [61, 80], "mode": "bilinear"}],
    "bicubic-down": [{"op": "decode"}, {"op": "resize", "size": [17, 20], "mode": "bicubic"}],
    "bicubic-up": [{"op": "decode"}, {"op": "resize", "size": [61, 80], "mode": "bicubic"}],
    "nearest-down": [{"op": "decode"}, {"op": "resize", "size": [17, 20], "mode": "nearest"}],
    "gray-bilinear": [{"op": "decode", "channels": "gray"}, {"op": "resize", "size": [28, 28], "mode": "bilinear"}],
    "shorter-crop": [{"op": "decode"}, {"op": "resize", "shorter": 24, "mode": "bicubic"}, {"op": "center_crop", "size": [20, 22]}],
}


def pipelines(files):
    """Reference tensors of image pipelines, one array for each name of PIPELINES."""
    pixels = discs(37, 53, 9, seed=21)
    files.image("pipelines/picture.png", pixels)
    files.document("pipelines/pipelines.json", {"image": "picture.png", "tensors": "pipelines.npz",
                                                "pipelines": [{"name": k, "pipeline": v} for k, v in PIPELINES.items()]})
    files.arrays("pipelines/pipelines.npz", {name: reference(pixels, steps) for name, steps in PIPELINES.items()})


def reference(pixels, steps):
    """f32[1,C,H,W] (or [1,H,W,C]) of the steps: Pillow on 8-bit images, then f32 arithmetic."""
    image, values, order, bgr = Image.fromarray(pixels), None, "nchw", False
    for step in steps:
        match step["op"]:
            case "decode":
                bgr = step.get("channels") == "bgr"
                image = image.convert("L" if step.get("channels") == "gray" else "RGB")
            case "resize":
                image = resized(image, step)
            case "center_crop":
                (height, width), (top, left) = step["size"], centre(image, step["size"])
                image = image.crop((left, top, left + width, top + height))
            case "scale":
                values = array(image, bgr) * np.float32(step["factor"])
            case "normalize":
                scaled = array(image, bgr) / np.float32(255)
                values = (scaled - np.float32(step["mean"])) / np.float32(step["std"])
            case "layout":
                order = step["order"]
    values = array(image, bgr) if values is None else values
    return np.ascontiguousarray(values if order == "nhwc" else values.transpose(2, 0, 1))[None]


def resized(image, step):
    if "shorter" in step:  # as torchvision: the longer side is rounded down
        factor = step["shorter"] / min(image.size)
        width, height = (step["shorter"] if side == min(image.size) else int(side * factor) for side in image.size)
    else:
        height, width = step["size"]
    return image.resize((width, height), Image.Resampling[step["mode"].upper()])


def centre(image, size):
    """Top and left of the middle crop, as torchvision rounds it."""
    return [int(round((side - wanted) / 2)) for side, wanted in zip(image.size[::-1], size)]


def array(image, bgr):
    """f32[H,W,C] of 0..255."""
    values = np.asarray(image, np.float32)
    values = values[..., None] if values.ndim == 2 else values
    return values[..., ::-1] if bgr else values
