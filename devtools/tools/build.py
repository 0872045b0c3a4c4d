"""Building the Go tools, each module once for its ``go.mod`` and ``go.sum``.

As few modules as possible: within one, what the tools share is compiled once. kube-score wants
Kubernetes libraries that the others' have outgrown, and compose needs none of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from devtools.tools import BIN

_HERE: Final = Path(__file__).resolve().parent
_LOCK: Final = BIN.parent / "lock"

_FLAGS: Final = ("-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w")


class BuildFailed(Exception):
    """Go is missing or too old, or a module did not build."""


def modules() -> list[Path]:
    """The folders with a ``go.mod``."""
    return sorted(path.parent for path in _HERE.glob("*/go.mod"))


def build() -> None:
    """Build every module that is not up to date; one build at a time on this checkout.

    Raises:
        BuildFailed: with the compiler's words.
    """
    go = shutil.which("go")
    with _locked():
        for module in modules():
            stamp, content = BIN / f".{module.name}", _digest(module)
            if stamp.exists() and stamp.read_text() == content:
                continue
            if go is None:
                raise BuildFailed("there is no Go here: install Go 1.26 or newer")
            began = time.monotonic()
            print(f"tools: building {module.name} (a few minutes on a new machine)", flush=True)
            _build(go, module)
            stamp.write_text(content)
            print(f"tools: {module.name} took {time.monotonic() - began:.0f} s", flush=True)


def wait() -> None:
    """Return when nobody builds."""
    with _locked():
        pass


def _build(go: str, module: Path) -> None:
    """All of the module's tools; a tool is there whole, or not at all."""
    with tempfile.TemporaryDirectory(dir=BIN.parent) as scratch:
        done = subprocess.run(
            [go, "build", *_FLAGS, "-o", f"{scratch}/", "tool"],
            cwd=module,
            # Nothing here is C, nobody debugs it, and memory is cheaper than the compiler's time.
            env=os.environ | {"CGO_ENABLED": "0", "GOGC": "400"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildFailed(f"{module.name} did not build\n{done.stderr.strip()[-2000:]}")
        for binary in Path(scratch).iterdir():
            binary.replace(BIN / binary.name)


def _digest(module: Path) -> str:
    sources = sorted(module.rglob("*.go"))  # where the tool is a few lines of our own
    parts = [path.read_bytes() for path in (module / "go.mod", module / "go.sum", *sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """A lock that ends with its holder, however that ends."""
    BIN.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
