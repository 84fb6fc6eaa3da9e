"""The files that data is kept in, and what their members mean (docs/evaluation.md)."""

import numpy as np

# Members that are no input of the model.
TRUTHS = ("label", "target", "text")
ALPHABET = "alphabet"


class Dataset:
    """Inputs to calibrate with and inputs with the truth, of one model; no sample is in both.

    `calibration` and `evaluation` map ONNX input names to arrays whose first axis is the sample. Beside inputs,
    `evaluation` has one of `label` (i64), `target` (f32) and `text` (<U), and with `text` the `alphabet`.
    """

    def __init__(self, model, calibration, evaluation):
        self.model, self.calibration, self.evaluation = model, calibration, evaluation

    def save(self, folder):
        """Writes <model>.calib.npz and <model>.eval.npz, and returns a line about them."""
        counts = []
        for kind, members in (("calib", self.calibration), ("eval", self.evaluation)):
            count = samples(members)
            counts.append(f"{count} {kind}")
            save(folder / f"{self.model}.{kind}.npz", members)
        return f"{self.model}: {', '.join(counts)}"


def samples(members):
    """How many samples the members hold; all must agree."""
    counts = {len(values) for name, values in members.items() if name != ALPHABET}
    assert len(counts) == 1, f"members of {counts} samples"
    return counts.pop()


def save(path, members):
    """One .npz, deflated, C order; it gets its name when it is complete."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as f:
        np.savez_compressed(f, **{name: np.ascontiguousarray(values) for name, values in members.items()})
    part.replace(path)


def inputs(members):
    """The members that are inputs of the model."""
    return {name: values for name, values in members.items() if name not in (*TRUTHS, ALPHABET)}
