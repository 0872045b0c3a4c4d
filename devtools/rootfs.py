"""A small Debian as a directory tree: what image and systemd tests run on.

No container image can be pulled where the tests must run, but every machine that tests Debian
packages reaches a Debian mirror.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from devtools import tools

_CACHE: Final = Path(__file__).resolve().parents[1] / ".cache" / "rootfs"
_SUITE: Final = "bookworm"
_TIMEOUT: Final = 900.0  # seconds; it takes 90 on two busy cores

#: One tree for all tests: bootstrapping is the slow part, and one is made faster than two.
PACKAGES: Final = ("ca-certificates", "dbus", "python3", "python3-venv", "systemd", "systemd-sysv")

#: Nothing there is read by a test, and trees are copied.
_BALLAST: Final = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)


class TreeUnavailable(Exception):
    """This machine cannot make the tree. The text says why."""


def debian_tree(packages: Sequence[str] = PACKAGES) -> Path:
    """The tree's directory, made by debootstrap on first use and shared by all later ones.

    Whoever needs to write in it makes a copy, or lays something over it.

    Raises:
        TreeUnavailable: there is no debootstrap, no root, or no mirror; with its last lines.
    """
    key = hashlib.sha256("\0".join((_SUITE, *sorted(packages), *_BALLAST)).encode())
    tree = _CACHE / f"{_SUITE}-{key.hexdigest()[:12]}"
    if tree.exists():
        return tree
    _CACHE.mkdir(parents=True, exist_ok=True)
    # pytest-xdist's workers come here at the same time: one makes it, the others wait.
    with (_CACHE / f"{tree.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _make(tree, packages)
    return tree


def _make(tree: Path, packages: Sequence[str]) -> None:
    debootstrap = tools.find("debootstrap")
    if debootstrap is None:
        raise TreeUnavailable("debootstrap not found: Debian's package `debootstrap` has it")
    if os.geteuid() != 0:
        raise TreeUnavailable("debootstrap needs root")
    # A directory of its own, renamed when complete: a half-made tree never gets the name.
    scratch = Path(tempfile.mkdtemp(prefix=f"{tree.name}.", dir=_CACHE))
    try:
        made = scratch / "tree"
        command = [
            str(debootstrap),
            "--variant=minbase",
            f"--include={','.join(packages)}",
            _SUITE,
            str(made),
        ]
        done = subprocess.run(
            command,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-5:])
            raise TreeUnavailable(f"debootstrap failed ({done.returncode}): {tail}")
        for path in _BALLAST:
            shutil.rmtree(made / path, ignore_errors=True)
            (made / path).mkdir(mode=0o755)
        made.chmod(0o755)
        made.rename(tree)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
