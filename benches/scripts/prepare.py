#!/usr/bin/env python3
"""Prepares what the bench compares: one set of inputs per model, and each rival's favourite file of it.

usage: prepare.py --models DIR --out DIR --engines ID... --case NAME FILE INPUT... [--case ...]

A case is a model with pinned inputs, INPUT being NAME=f32[1,3,224,224] and the like. Written per case, into
OUT/NAME/: input.npz (seeded, stored), model.onnx (inputs pinned, stale shape notes dropped, ai.onnx.ml operators
rewritten: rivals import that faster and more of it), model.rten, external.onnx with external.data, model.blob (OpenVINO,
compiled for this CPU), model.int8.onnx (ONNX Runtime's own static quantization, by calibration.npz: four more inputs), and
reference.npz (ONNX Runtime's answer from the original file, graph untouched); rivals' files only for the engines named. A rival that refuses a model gets <rival>.refused with its reason in place of a file. What
is there is left alone.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

DTYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}
RANGES = {  # what a model's integers mean, or the range of its floats where it is not about -2..2
    "input_ids": (1000, 30000), "attention_mask": (1, 2), "token_type_ids": (0, 1), "bytes": (0, 256),
    "X": (0, 16), "silero": (-0.3, 0.3),
}


def parse_input(text):
    name, dtype, dims = re.fullmatch(r"(.+)=(\w+)\[([\d,]*)\]", text).groups()
    return name, DTYPES[dtype], [int(d) for d in dims.split(",") if d]


def inputs(case, pins, seed=7):
    """Seeded, no two rows of a batch alike, and of the kind that the model expects: token ids, bytes, pixels about zero,
    quiet audio."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, dtype, shape in pins:
        low, high = RANGES.get(name) or (RANGES["silero"] if "silero" in case else (-2, 2))
        if np.issubdtype(dtype, np.integer):
            made[name] = rng.integers(low, high, shape, dtype=dtype)
        else:
            made[name] = rng.uniform(low, high, shape).astype(dtype)
    return made


def pinned(model, pins):
    """The model with concrete inputs, and without the shapes that it notes for anything else."""
    shapes = {name: shape for name, _, shape in pins}
    for value in model.graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape
            del dims.dim[:]
            for size in shapes[value.name]:
                dims.dim.add().dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return rewritten(model)


def rewritten(model):
    """Without the operators of ai.onnx.ml that stand for plain ones: Scaler, ArrayFeatureExtractor."""
    nodes = []
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        first = node.output[0]
        if node.op_type == "Scaler":
            for name in ("offset", "scale"):
                constant = np.array(attributes[name], np.float32)
                model.graph.initializer.append(numpy_helper.from_array(constant, f"{first}.{name}"))
            nodes.append(helper.make_node("Sub", [node.input[0], f"{first}.offset"], [f"{first}.centred"]))
            nodes.append(helper.make_node("Mul", [f"{first}.centred", f"{first}.scale"], [first]))
        elif node.op_type == "ArrayFeatureExtractor":
            nodes.append(helper.make_node("Gather", list(node.input), [first], axis=-1))
        else:
            nodes.append(node)
    if [n.op_type for n in nodes] != [n.op_type for n in model.graph.node]:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for opset in [o for o in model.opset_import if o.domain == "ai.onnx.ml"]:
            model.opset_import.remove(opset)
    return model


def reference(path, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def external(folder):
    """ONNX whose weights lie beside it, which is what RTen maps."""
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "external.onnx", save_as_external_data=True, location="external.data", size_threshold=1024)


def rten(folder):
    command = [str(Path(sys.executable).with_name("rten-convert")), str(folder / "model.onnx"), str(folder / "model.rten")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])


def openvino(folder):
    import openvino as ov

    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(folder / "model.onnx"), "CPU", options)
    blob = compiled.export_model()
    (folder / "model.blob").write_bytes(blob.getvalue() if hasattr(blob, "getvalue") else bytes(blob))


def ort_int8(folder):
    """Per channel; weights of seven bits, without which sums of AVX2's 16 bits saturate."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self):
            members = np.load(folder / CALIBRATION)
            names = members.files
            self.samples = iter([dict(zip(names, values)) for values in zip(*(members[n] for n in names))])

        def get_next(self):
            return next(self.samples, None)

    quantize_static(
        str(folder / "model.onnx"), str(folder / "model.int8.onnx"), Samples(), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


CALIBRATION = "calibration.npz"
CALIBRATION_SAMPLES = 4
MAKERS = [("ort-int8", "model.int8.onnx", ort_int8), ("rten", "model.rten", rten), ("rten-external", "external.onnx", external), ("openvino", "model.blob", openvino)]


def prepare(models, out, engines, name, file, pins):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    source = models / file
    feeds = inputs(name, pins)
    if not (folder / "reference.npz").is_file():
        np.savez(folder / "input.npz", **feeds)
        onnx.save(pinned(onnx.load(source), pins), folder / "model.onnx")
        np.savez(folder / "reference.npz", **reference(source, feeds))
    if "ort-int8" in engines and not (folder / CALIBRATION).is_file():
        samples = [inputs(name, pins, 100 + seed) for seed in range(CALIBRATION_SAMPLES)]
        np.savez(folder / CALIBRATION, **{input: np.stack([s[input] for s in samples]) for input in feeds})
    for rival, made, maker in MAKERS:
        refused = folder / f"{rival}.refused"
        if rival not in engines or (folder / made).is_file() or refused.is_file():
            continue
        try:
            maker(folder)
            print(f"{name}: made {made}", flush=True)
        except Exception as error:
            (folder / made).unlink(missing_ok=True)
            reason = " ".join(str(error).split())[:300]
            refused.write_text(reason + "\n", encoding="utf-8")
            print(f"{name}: {rival} refuses it: {reason}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", required=True, metavar="ID")
    parser.add_argument("--case", nargs="+", action="append", required=True, metavar="NAME FILE INPUT")
    arguments = parser.parse_args()
    for name, file, *pins in arguments.case:
        prepare(arguments.models, arguments.out, arguments.engines, name, file, [parse_input(p) for p in pins])


if __name__ == "__main__":
    main()
