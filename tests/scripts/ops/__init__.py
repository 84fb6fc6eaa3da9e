"""One tiny model per operator that plans know, in the variants that matter, with ONNX Runtime's answers.

Every model is `ops/<name>.onnx` in tests/data, its tensors `ops/<name>.npz`: members `in.<input>` and `out.<output>`.
`ops/ops.json` says which of the plan's operators each model must be coded with.
"""

import numpy as np

from . import (  # noqa: F401, each registers its cases
    blocks,
    elements,
    moves,
    products,
    recurrent,
    reductions,
    transformers,
    windows,
)
from .model import CASES, Model


def ops(files, run):
    """Writes all models and answers; `run` is ONNX Runtime on the bytes of a model."""
    rows = []
    for name, plan, opset, build in CASES:
        m = Model(name, opset)
        build(m)
        content = m.finish().SerializeToString()
        answers = run(content, m.feeds)
        assert all(np.isfinite(v).all() for v in answers.values() if v.dtype == np.float32), name
        files.data(f"ops/{name}.onnx", content)
        members = {f"in.{k}": v for k, v in m.feeds.items()} | {f"out.{k}": v for k, v in answers.items()}
        files.arrays(f"ops/{name}.npz", members)
        rows.append({"model": name, "plan": plan})
    files.document("ops/ops.json", {"models": rows})
