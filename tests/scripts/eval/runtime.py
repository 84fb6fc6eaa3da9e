"""ONNX Runtime in f32, one sample at a time."""

import numpy as np
import onnxruntime as ort

from dataset import inputs, samples


class Model:
    """A model's path, ready to run."""

    def __init__(self, path):
        options = ort.SessionOptions()
        # One thread: the same sums on any machine, and no threads that wait for each other on a busy one.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.ranks = {i.name: len(i.shape) for i in self.session.get_inputs()}

    def run(self, feeds, outputs=None):
        """The outputs of one run, by name."""
        names = outputs or [o.name for o in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds)))

    def evaluate(self, members, output):
        """One output for every sample, in order: a list of arrays."""
        feeds = inputs(members)
        return [self.run({n: self.sample(n, v, i) for n, v in feeds.items()}, [output])[output]
                for i in range(samples(members))]

    def sample(self, name, values, index):
        """Sample `index`: of an input with a batch axis a batch of one, of any other input all of it."""
        return values[index:index + 1] if values.ndim == self.ranks[name] else values[index]


def stack(arrays):
    """One array of outputs, the first axis being the sample."""
    return np.concatenate(arrays) if arrays[0].shape[:1] == (1,) else np.stack(arrays)
