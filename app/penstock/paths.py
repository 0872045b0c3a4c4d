"""Where a service keeps its runtime files. Imports nothing heavy: client commands need it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: The file in the runtime directory that holds the generated control token.
TOKEN_FILE: Final = "control-token"  # noqa: S105 (a file name, not a secret)


def default_runtime_dir(env: Mapping[str, str], port: int) -> Path:
    """The runtime directory when none is set; the client commands look in the same place."""
    base = env.get("XDG_RUNTIME_DIR") or env.get("TMPDIR") or "/tmp"  # noqa: S108 (made 0700, owner checked)
    return Path(base) / f"penstock-{os.getuid()}-{port}"


def runtime_dir(env: Mapping[str, str], port: int) -> Path:
    """The runtime directory of the service on ``port``, seen from outside it.

    Mirrors ``Settings.resolved_runtime_dir`` without reading the settings.
    """
    chosen = env.get("PENSTOCK_RUNTIME_DIR")
    return Path(chosen) if chosen else default_runtime_dir(env, port)
