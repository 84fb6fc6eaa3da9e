"""Writing reference files, or comparing with those that are there."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).resolve().parent.parent / "data"


class Files:
    """Where results go: into tests/data, or against what lies there (`--check`)."""

    def __init__(self, check):
        self.check, self.differences, self.count = check, [], 0

    def arrays(self, name, arrays):
        """One .npz; member names are the ONNX names exactly."""
        path = self._begin(name)
        if path is None:
            return
        if not self.check:
            np.savez_compressed(path, **arrays)
            return
        with np.load(path) as found:
            same = set(found.files) == set(arrays) and all(_close(found[k], v) for k, v in arrays.items())
        self._note(same, name)

    def image(self, name, pixels):
        """One PNG, grayscale or RGB, 8 bits."""
        path = self._begin(name)
        if path is None:
            return
        if not self.check:
            Image.fromarray(pixels).save(path, optimize=True)
            return
        self._note(np.array_equal(np.asarray(Image.open(path)), pixels), name)

    def document(self, name, value):
        """One JSON document; `value` may hold floats, compared with tolerance."""
        path = self._begin(name)
        if path is None:
            return
        if not self.check:
            path.write_text(_pretty(value), encoding="utf-8")
            return
        self._note(_alike(json.loads(path.read_text(encoding="utf-8")), value), name)

    def text(self, name, value):
        """One text file, exactly."""
        path = self._begin(name)
        if path is None:
            return
        if not self.check:
            path.write_text(value, encoding="utf-8")
            return
        self._note(path.read_text(encoding="utf-8") == value, name)

    def data(self, name, value):
        """One file of bytes, exactly."""
        path = self._begin(name)
        if path is None:
            return
        if not self.check:
            path.write_bytes(value)
            return
        self._note(path.read_bytes() == value, name)

    def _begin(self, name):
        """The file's path; nothing where there is no such file to compare with."""
        self.count += 1
        path = DATA / name
        if not self.check:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            self._note(False, name)
            return None
        return path

    def _note(self, same, name):
        if not same:
            self.differences.append(name)


def _pretty(value):
    """JSON with one line per top-level member, and one per row where a member is a list of objects."""
    def member(v):
        if isinstance(v, list) and v and isinstance(v[0], dict):
            return "[\n  " + ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in v) + "\n ]"
        return json.dumps(v, ensure_ascii=False)
    return "{\n" + ",\n".join(f" {json.dumps(k)}: {member(v)}" for k, v in value.items()) + "\n}\n"


def _close(found, wanted):
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    if not np.issubdtype(wanted.dtype, np.floating):
        return np.array_equal(found, wanted)
    return float(np.abs(found - wanted).max()) <= 1e-5 * max(float(np.abs(wanted).max()), 1e-30)


def _alike(found, wanted):
    if isinstance(wanted, float):
        return isinstance(found, float) and abs(found - wanted) <= 1e-4 * max(1.0, abs(wanted))
    if isinstance(wanted, dict):
        return isinstance(found, dict) and found.keys() == wanted.keys() and all(_alike(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_alike, found, wanted))
    return found == wanted
