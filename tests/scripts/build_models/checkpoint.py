"""Reads weights without torch: PyTorch state dicts (legacy and zip form) and safetensors."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}
SAFETENSORS = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


class _Storage:
    def __init__(self, key, dtype):
        self.key, self.dtype = key, dtype


class _Tensor:
    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _State(dict):
    """An OrderedDict that takes the `_metadata` attribute PyTorch hangs on it."""


class _StateUnpickler(pickle.Unpickler):
    """Knows the few names that a state dict needs and refuses every other: nothing in a file gets to run."""

    NAMES = {
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("collections", "OrderedDict"): _State,
    }

    def __init__(self, stream):
        super().__init__(stream)
        self.storages = {}

    def find_class(self, module, name):
        if module == "torch" and name in STORAGES:
            return name
        if (module, name) in self.NAMES:
            return self.NAMES[module, name]
        raise pickle.UnpicklingError(f"unexpected {module}.{name} in a state dict")

    def persistent_load(self, pid):
        _, kind, key = pid[:3]
        return self.storages.setdefault(key, _Storage(key, np.dtype(STORAGES[kind])))


def torch_state(path):
    """Tensors of a `torch.save`d state dict, by name."""
    if zipfile.is_zipfile(path):
        state, data = _zip_form(path)
    else:
        state, data = _legacy_form(path)
    return {name: _dense(tensor, data[tensor.storage.key]) for name, tensor in state.items()}


def _zip_form(path):
    archive = zipfile.ZipFile(path)
    root = next(n for n in archive.namelist() if n.endswith("data.pkl")).removesuffix("data.pkl")
    unpickler = _StateUnpickler(io.BytesIO(archive.read(root + "data.pkl")))
    state = unpickler.load()
    return state, {k: np.frombuffer(archive.read(f"{root}data/{k}"), s.dtype) for k, s in unpickler.storages.items()}


def _legacy_form(path):
    with open(path, "rb") as f:
        for _ in range(3):  # magic number, protocol, system facts
            _StateUnpickler(f).load()
        unpickler = _StateUnpickler(f)
        state, data = unpickler.load(), {}
        for key in _StateUnpickler(f).load():
            (count,) = struct.unpack("<q", f.read(8))
            dtype = unpickler.storages[key].dtype
            data[key] = np.frombuffer(f.read(count * dtype.itemsize), dtype)
    return state, data


def _dense(tensor, data):
    if not tensor.size:
        return np.array(data[tensor.offset])
    strides = [s * data.itemsize for s in tensor.stride]
    return np.lib.stride_tricks.as_strided(data[tensor.offset:], tensor.size, strides).copy()


def safetensors(path):
    """Tensors of a .safetensors file, by name."""
    with open(path, "rb") as f:
        (header_bytes,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(header_bytes))
        body = f.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[begin:end], SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return tensors
