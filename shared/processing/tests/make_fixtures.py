#!/usr/bin/env python3
"""Writes tests/data/: small synthetic images, and what Pillow makes of them.

The reference is Pillow (with numpy for what comes after the pixels), never our own code:
    pip install pillow numpy && python3 make_fixtures.py
cases.json lists the cases; `steps` are spelled as in a manifest. Expected elements are raw little-endian
files: .u8 holds bytes, .f32 holds binary32. Made with Pillow 13.0.0, numpy 2.4.6.
"""
import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

OUT = pathlib.Path(__file__).parent / "data"
rng = np.random.default_rng(7)
cases = []


def synthetic(width, height):
    y, x = np.mgrid[0:height, 0:width]
    red = 127 + 120 * np.sin(x / 3.0) * np.cos(y / 5.0)
    green = 255 * x / width
    blue = 255 * ((x // 6 + y // 6) % 2)
    noise = rng.integers(-12, 13, (height, width, 3))
    return np.clip(np.stack([red, green, blue], -1) + noise, 0, 255).astype(np.uint8)


def write_png16(path, samples):
    """Pillow writes no 16-bit RGB, so here is the smallest PNG writer that does."""
    height, width = samples.shape[:2]
    color = {1: 0, 3: 2}[1 if samples.ndim == 2 else samples.shape[2]]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def case(name, file, steps, expected, tolerance=0):
    """`expected`: [H, W, C] or [C, H, W] as the steps' layout says; a batch axis is added."""
    expected = np.ascontiguousarray(expected)
    kind = {"uint8": "u8", "float32": "f32"}[str(expected.dtype)]
    (OUT / f"{name}.{kind}").write_bytes(expected.tobytes())
    cases.append({"name": name, "file": file, "steps": steps, "dtype": kind, "shape": [1, *expected.shape], "tolerance": tolerance})


def pixels(image):
    a = np.asarray(image)
    return a[:, :, None] if a.ndim == 2 else a


RGB = {"op": "decode", "channels": "rgb"}
GRAY = {"op": "decode", "channels": "gray"}
NHWC = {"op": "layout", "order": "nhwc"}


def decoding():
    photo = Image.fromarray(synthetic(31, 22))
    gray = photo.convert("L")
    alpha = Image.fromarray(rng.integers(0, 256, (22, 31), dtype=np.uint8))
    rgba = photo.copy()
    rgba.putalpha(alpha)
    la = gray.copy()
    la.putalpha(alpha)
    for name, image in {
        "rgb": photo,
        "gray": gray,
        "rgba": rgba,
        "la": la,
        "palette": photo.quantize(16),
        "bits1": gray.convert("1"),
    }.items():
        image.save(OUT / f"{name}.png", optimize=True)
        case(f"{name}-as-rgb", f"{name}.png", [RGB, NHWC], pixels(image.convert("RGB")))
        case(f"{name}-as-gray", f"{name}.png", [GRAY, NHWC], pixels(image.convert("RGB").convert("L")))
    case("rgb-as-bgr", "rgb.png", [{"op": "decode", "channels": "bgr"}, NHWC], pixels(photo)[:, :, ::-1])

    rgb16 = rng.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    write_png16(OUT / "rgb16.png", rgb16)
    case("rgb16-as-rgb", "rgb16.png", [RGB, NHWC], ((rgb16.astype(np.uint32) + 128) // 257).astype(np.uint8))
    gray16 = rng.integers(0, 65536, (9, 7), dtype=np.uint16)
    write_png16(OUT / "gray16.png", gray16)
    case("gray16-as-gray", "gray16.png", [GRAY, NHWC], pixels(((gray16.astype(np.uint32) + 128) // 257).astype(np.uint8)))


def jpegs():
    smooth = Image.fromarray(synthetic(64, 48)).resize((31, 22), Image.BICUBIC).resize((40, 24), Image.BICUBIC)
    for name, options in {
        "jpeg420": {"quality": 92, "subsampling": "4:2:0"},
        "jpeg444": {"quality": 92, "subsampling": "4:4:4"},
        "progressive": {"quality": 92, "subsampling": "4:4:4", "progressive": True},
    }.items():
        smooth.save(OUT / f"{name}.jpg", **options)
        # Decoders may round the inverse transform and the chroma upsampling their own way.
        tolerance = 8 if name == "jpeg420" else 3
        case(name, f"{name}.jpg", [RGB, NHWC], pixels(Image.open(OUT / f"{name}.jpg")), tolerance)
    smooth.convert("L").save(OUT / "gray.jpg", quality=92)
    case("jpeg-gray", "gray.jpg", [GRAY, NHWC], pixels(Image.open(OUT / "gray.jpg")), 2)
    smooth.convert("CMYK").save(OUT / "cmyk.jpg", quality=92)
    case("jpeg-cmyk", "cmyk.jpg", [RGB, NHWC], pixels(Image.open(OUT / "cmyk.jpg").convert("RGB")), 3)
    quarters = np.zeros((16, 24, 3), np.uint8)
    quarters[:8, :12], quarters[:8, 12:], quarters[8:, :12] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"orientation{orientation}"
        Image.fromarray(quarters).save(OUT / f"{name}.jpg", quality=95, subsampling="4:4:4", exif=exif)
        upright = ImageOps.exif_transpose(Image.open(OUT / f"{name}.jpg"))
        case(name, f"{name}.jpg", [RGB, NHWC], pixels(upright), 3)


def resampling():
    # Pillow keeps filter weights in 22 bits, our resampler in 16: a few elements differ by 1.
    photo = Image.fromarray(synthetic(61, 45))
    photo.save(OUT / "photo.png", optimize=True)
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST}
    for mode, filter in filters.items():
        for width, height in [(24, 16), (7, 5), (80, 50), (40, 60), (61, 20)]:
            step = {"op": "resize", "size": [height, width], "mode": mode}
            resized = photo.resize((width, height), filter)
            case(f"{mode}-{width}x{height}", "photo.png", [RGB, step, NHWC], pixels(resized), int(mode != "nearest"))
        step = {"op": "resize", "size": [16, 24], "mode": mode}
        case(f"{mode}-gray", "photo.png", [GRAY, step, NHWC], pixels(photo.convert("L").resize((24, 16), filter)), int(mode != "nearest"))
    # torchvision: the longer side is int(size * long / short); the crop's offset is round((side - crop) / 2).
    shorter = {"op": "resize", "shorter": 20}
    width = int(20 * 61 / 45)
    resized = photo.resize((width, 20), Image.BILINEAR)
    left, top = round((width - 16) / 2), round((20 - 13) / 2)
    crop = {"op": "center_crop", "size": [13, 16]}
    case("shorter-crop", "photo.png", [RGB, shorter, crop, NHWC], pixels(resized)[top : top + 13, left : left + 16], 1)
    tall = photo.transpose(Image.Transpose.ROTATE_90)
    tall.save(OUT / "tall.png", optimize=True)
    resized = tall.resize((20, width), Image.BILINEAR)
    crop = {"op": "center_crop", "size": [16, 15]}
    left, top = round((20 - 15) / 2), round((width - 16) / 2)
    case("shorter-crop-tall", "tall.png", [RGB, shorter, crop, NHWC], pixels(resized)[top : top + 16, left : left + 15], 1)


def values():
    photo = np.asarray(Image.open(OUT / "rgb.png")).astype(np.float32)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normalize = {"op": "normalize", "mean": mean, "std": std}
    normal = (photo / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    case("normalize-nchw", "rgb.png", [RGB, normalize], normal.transpose(2, 0, 1), 2e-6)
    case("normalize-nhwc", "rgb.png", [RGB, normalize, NHWC], normal, 2e-6)
    bgr = {"op": "decode", "channels": "bgr"}
    half = {"op": "normalize", "mean": [0.5] * 3, "std": [0.5] * 3}
    expected = ((photo / np.float32(255) - np.float32(0.5)) / np.float32(0.5))[:, :, ::-1].transpose(2, 0, 1)
    case("bgr-half", "rgb.png", [bgr, half], expected, 1e-6)
    scaled = {"op": "normalize", "mean": [127, 127, 127], "std": [128, 128, 128]}
    expected = ((photo - np.float32(127)) / np.float32(128)).transpose(2, 0, 1)
    case("scale-one-then-normalize", "rgb.png", [RGB, {"op": "scale", "factor": 1}, scaled], expected, 1e-6)
    gray = np.asarray(Image.open(OUT / "rgb.png").convert("L")).astype(np.float32)
    scale = {"op": "scale", "factor": 0.00392156862745098}
    case("gray-scale", "rgb.png", [GRAY, scale], (gray / np.float32(255))[None], 1e-6)
    case("plain-floats", "rgb.png", [RGB], photo.transpose(2, 0, 1))


for old in OUT.iterdir():
    old.unlink()
decoding()
jpegs()
resampling()
values()
(OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
