"""The tabular models: the rows that scikit-learn's split holds out, and rows of the other part to calibrate with."""

import numpy as np

from build_models import tabular
from dataset import Dataset

CALIBRATION = 128


def datasets(root):
    return [dataset(name) for name in tabular.NAMES]


def dataset(name):
    train, test, _, truth = tabular.split(name)
    regression = np.issubdtype(truth.dtype, np.floating)
    truth = {"target": truth.astype(np.float32)} if regression else {"label": truth.astype(np.int64)}
    return Dataset(name, {"X": train[:CALIBRATION]}, {"X": test} | truth)
