"""mnist-cnn: the digits that training never saw, and some that it did to calibrate with."""

import mnist
from dataset import Dataset

CALIBRATION = 256


def datasets(root):
    seen, _, images, labels = mnist.split(root)
    return [Dataset("mnist-cnn", {"image": seen[:CALIBRATION]}, {"image": images, "label": labels.astype("int64")})]
