"""The locked dependencies as files: what ``pip install`` needs where there is no network."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_CACHE: Final = _ROOT / ".cache" / "wheels"
_LOCKS: Final = (
    _ROOT / "requirements" / "runtime.lock",
    _ROOT / "requirements" / "build.lock",
)
_TIMEOUT: Final = 600.0


class WheelsUnavailable(Exception):
    """The wheels cannot be had. The text says why."""


def wheelhouse(python: str) -> Path:
    """The directory with a wheel of everything locked, for this Python (``3.11``).

    Fetched once for each content of the locks.

    Raises:
        WheelsUnavailable: pip could not get them, with its last lines.
    """
    key = hashlib.sha256("\0".join(lock.read_text() for lock in _LOCKS).encode())
    wheels = _CACHE / f"{python}-{key.hexdigest()[:12]}"
    if wheels.exists():
        return wheels
    _CACHE.mkdir(parents=True, exist_ok=True)
    # pytest-xdist's workers come here at the same time: one fetches, the others wait.
    with (_CACHE / f"{wheels.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wheels.exists():
            _fetch(wheels, python)
    return wheels


def _fetch(wheels: Path, python: str) -> None:
    # A directory of its own, renamed when complete: a half-filled one never gets the name.
    scratch = Path(tempfile.mkdtemp(prefix=f"{wheels.name}.", dir=_CACHE))
    try:
        for lock in _LOCKS:
            command = [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download"),
                *("--quiet", "--require-hashes", f"--requirement={lock}", f"--dest={scratch}"),
                *("--only-binary=:all:", f"--python-version={python}", "--no-deps"),
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
                raise WheelsUnavailable(f"pip download failed ({done.returncode}): {tail}")
        scratch.chmod(0o755)
        scratch.rename(wheels)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
