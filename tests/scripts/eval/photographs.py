"""EfficientNet-lite0: crops of the photographs that scikit-image and scikit-learn bundle.

Nobody labelled them with ImageNet's classes, so the label is the f32 model's own first choice and top-1 counts how
often a smaller model agrees with it. Calibration crops are of photographs from elsewhere.
"""

from importlib.resources import files

import numpy as np
from PIL import Image

from dataset import Dataset
from runtime import Model

SIDE, CROPS = 224, 10
# Originals only: what is drawn, synthesized or a second view of the same scene is left out.
SKIMAGE = ["astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
           "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png",
           "retina.jpg", "rocket.jpg", "text.png"]
SKLEARN = ["china.jpg", "flower.jpg"]


def datasets(root):
    images = files("sklearn.datasets") / "images"
    originals = [root / "data" / "skimage" / name for name in SKIMAGE] + [images / name for name in SKLEARN]
    evaluation = {"input": crops(originals, seed=1)}
    model = Model(root / "efficientnet-lite0.onnx")
    evaluation["label"] = np.array([o.argmax() for o in model.evaluate(evaluation, "logits")], np.int64)
    calibration = {"input": crops(sorted((root / "data" / "backgrounds").glob("*.jpg")), seed=2)}
    return [Dataset("efficientnet-lite0", calibration, evaluation)]


def crops(originals, seed):
    """f32[originals * CROPS,3,224,224] as the model takes them: RGB, (x - 127) / 128."""
    random = np.random.RandomState(seed)
    pixels = np.stack([crop(image, random) for image in map(opened, originals) for _ in range(CROPS)])
    return (pixels.transpose(0, 3, 1, 2).astype(np.float32) - np.float32(127)) / np.float32(128)


def opened(path):
    with path.open("rb") as f:
        return Image.open(f).convert("RGB")


def crop(image, random):
    """A square of half to all of the shorter side, anywhere, mirrored or not: u8[224,224,3]."""
    side = int(round(min(image.size) * random.uniform(0.5, 1)))
    left, top = (int(random.randint(0, length - side + 1)) for length in image.size)
    square = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    pixels = np.asarray(square)
    return pixels[:, ::-1] if random.randint(2) else pixels
