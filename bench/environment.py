"""Virtual environments for what must not be mixed with this project's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"


def make(place: Path, requirements: Path) -> str:
    """Make it, unless it is there for these pins and this Python; empty, or what went wrong."""
    stamp = place / "made-for"
    wanted = f"{sys.version}\n{requirements.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return ""
    print(f"bench: making .cache/{place.relative_to(CACHE)}\n", file=sys.stderr, end="", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    python = str(place / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        # Without dependencies: the file names all of them, so nothing unpinned gets in.
        [python, "-m", "pip", "install", *quiet, "--no-deps", "-r", str(requirements)],
    ):
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            return f"`{' '.join(command[1:4])}` took more than ten minutes"
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            return f"does not install: {last[-1]}"
    stamp.write_text(wanted)
    return ""
