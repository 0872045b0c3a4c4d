"""Directory trees: what is in one, to compare two of them, and a copy to write in."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def listing(root: Path) -> dict[str, str]:
    """Path below ``root`` → kind, mode, owner and content of the file. No times."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            seen = path.lstat()
            facts = [f"{seen.st_mode:o}", f"{seen.st_uid}:{seen.st_gid}"]
            if stat.S_ISLNK(seen.st_mode):
                facts.append(str(path.readlink()))
            elif stat.S_ISREG(seen.st_mode):
                facts.append(hashlib.sha256(path.read_bytes()).hexdigest())
            found[str(path.relative_to(root))] = " ".join(facts)
    return found


def copy(tree: Path, to: Path) -> None:
    """Copy everything as it is: owners, times, device files (which ``shutil`` would read)."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(tree), str(to)], check=True)


@contextmanager
def scratch_copy(tree: Path, to: Path) -> Iterator[Path]:
    """A copy to write in, gone afterwards: pytest would keep it."""
    try:
        copy(tree, to)
        yield to
    finally:
        shutil.rmtree(to, ignore_errors=True)
