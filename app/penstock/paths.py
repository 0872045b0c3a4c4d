"""Where a service keeps its runtime files. Imports nothing heavy: client commands need it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: The file in the runtime directory that holds the generated control token.
TOKEN_FILE: Final = "control-token"  # noqa: S105 (a file name, not a secret)


#: Characters of an application's name in a directory's.
_NAME_LIMIT: Final = 40


def default_runtime_dir(env: Mapping[str, str], port: int) -> Path:
    """The runtime directory when none is set; the client commands look in the same place."""
    return _base(env) / f"penstock-{os.getuid()}-{port}"


def default_state_dir(env: Mapping[str, str], port: int, target: str, directory: Path) -> Path:
    """The state directory when none is set: one for each application, which finds it again.

    An application is what ``target`` (``MODULE:APP``) names from the working ``directory``; a
    port of its own makes another service of it. The runtime directory goes by the port alone,
    because the client commands know no more.
    """
    import hashlib  # noqa: PLC0415 (client commands do not need it)

    name, _, attribute = target.partition(":")
    where = directory
    if name.endswith(".py"):  # the file says where it is
        path = directory / name
        where, name = path.parent, path.stem
    identity = "\0".join((os.path.realpath(where), name, attribute))
    shown = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:12]
    return _base(env) / f"penstock-{os.getuid()}-{port}-{shown[:_NAME_LIMIT]}-{digest}"


def _base(env: Mapping[str, str]) -> Path:
    return Path(env.get("XDG_RUNTIME_DIR") or env.get("TMPDIR") or "/tmp")  # noqa: S108 (made 0700, owner checked)


def runtime_dir(env: Mapping[str, str], port: int) -> Path:
    """The runtime directory of the service on ``port``, seen from outside it.

    Mirrors ``Settings.resolved_runtime_dir`` without reading the settings.
    """
    chosen = env.get("PENSTOCK_RUNTIME_DIR")
    return Path(chosen) if chosen else default_runtime_dir(env, port)
