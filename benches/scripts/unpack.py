#!/usr/bin/env python3
"""Takes one file out of a .tgz whose digest is known.     usage: unpack.py ARCHIVE SHA256 MEMBER TARGET"""

import hashlib
import shutil
import sys
import tarfile
from pathlib import Path


def main():
    archive, digest, member, target = sys.argv[1:]
    with open(archive, "rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != digest:
        sys.exit(f"{archive} has sha256 {found}, expected {digest}")
    part = Path(target + ".part")
    with tarfile.open(archive) as tar, tar.extractfile(member) as source, open(part, "wb") as f:
        shutil.copyfileobj(source, f, 1 << 20)
    part.replace(target)


if __name__ == "__main__":
    main()
