#!/usr/bin/env python3
"""Makes data to calibrate and to evaluate compression with: DIR/eval/<model>.{calib,eval}.npz.

usage: make.py --dir DIR [--only MODULE ...] [--force]      (`cargo xtask eval-data` runs it; DIR: `cargo xtask models --all`)

What the files mean is docs/evaluation.md. Everything is seeded. Files that are there are left alone unless forced.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import models

# Each makes the data of one model or of a family: module to models.
MODULES = {
    "digits": ["mnist-cnn"],
    "tables": ["tab_bc_gbt", "tab_bc_rf", "tab_bc_scaler_logreg", "tab_digits_mlp", "tab_diabetes_gbr"],
    "mails": ["minilm-l6-v2-f32"],
    "lines": ["ppocrv4-rec"],
    "photographs": ["efficientnet-lite0"],
    "speech": ["silero-vad-16k-sequence", "silero-vad-openvino-16k"],
    "file_types": ["magika-v3_3"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="the models folder; the data goes to its folder eval")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES), help="some of it")
    parser.add_argument("--force", action="store_true", help="make anew what is there")
    arguments = parser.parse_args()
    root = arguments.dir.resolve()
    folder = root / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [m for m in arguments.only if arguments.force or not complete(folder, MODULES[m])]
    if missing:
        models.fetch_sets(root, {"eval"})
    for name in missing:
        begun = time.monotonic()
        made = [dataset.save(folder) for dataset in importlib.import_module(name).datasets(root)]
        models.say("\n".join(made) + f" ({time.monotonic() - begun:.0f} s)")
    models.say(f"{len(list(folder.glob('*.eval.npz')))} evaluation sets in {folder}")


def complete(folder, names):
    return all((folder / f"{name}.{kind}.npz").is_file() for name in names for kind in ("calib", "eval"))


if __name__ == "__main__":
    main()
