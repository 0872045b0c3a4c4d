"""The control token: from the settings, from a file, or made at start.

Read by the service (:func:`resolve_token`) and by the client commands (:func:`read_token`),
which start as exec hooks of the kubelet: nothing heavy is imported at the top.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock import paths
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.settings import Settings

MIN_LENGTH: Final = 8
UNSENDABLE: Final = "a control token travels in a header: printable ASCII without spaces"


def resolve_token(settings: Settings) -> str:
    """The token that POST requests must carry.

    Call it once the port is bound: a second service started by mistake on the same port
    must not replace the first one's token.

    Raises:
        ConfigError: a token that is unusable, or a runtime directory that others control.
    """
    return configured_token(settings) or _generate(settings.resolved_runtime_dir())


def configured_token(settings: Settings) -> str | None:
    """The token of the settings or of their file; ``None`` when one is to be made.

    Raises:
        ConfigError: empty, unreadable, too short, or not to be sent in a header.
    """
    if settings.control_token is not None:
        return _usable(settings.control_token.get_secret_value(), "PENSTOCK_CONTROL_TOKEN")
    path = settings.control_token_file
    if path is None:
        return None
    name = f"PENSTOCK_CONTROL_TOKEN_FILE={path}"
    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {_why(error)}") from error
    return _usable(content, name)


def read_token(env: Mapping[str, str], port: int) -> str | None:
    """The token of the service on ``port``, as a client finds it; ``None`` if it does not."""
    token = env.get("PENSTOCK_CONTROL_TOKEN", "").strip()
    if token:
        return token
    chosen = env.get("PENSTOCK_CONTROL_TOKEN_FILE")
    path = Path(chosen) if chosen else paths.runtime_dir(env, port) / paths.TOKEN_FILE
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def sendable(token: str) -> bool:
    """Whether it can be sent in a header; if not, :data:`UNSENDABLE` says why."""
    return all("!" <= character <= "~" for character in token)


def _usable(text: str, name: str) -> str:
    token = text.strip()  # a Secret made with `echo` ends in a newline
    if len(token) < MIN_LENGTH:
        what = "is empty" if not token else f"has {len(token)} characters"
        raise ConfigError(f"{name}: the control token {what}; {MIN_LENGTH} are the least")
    if not sendable(token):
        raise ConfigError(f"{name}: {UNSENDABLE}")
    return token


def _generate(directory: Path) -> str:
    import secrets  # noqa: PLC0415 (client commands do not make tokens)

    from penstock.private_dir import open_private  # noqa: PLC0415 (as above)

    token = secrets.token_urlsafe(32)
    try:
        folder = open_private(directory, "runtime directory", "PENSTOCK_RUNTIME_DIR")
        try:
            _write(folder, token)
        finally:
            os.close(folder)
    except OSError as error:
        import structlog  # noqa: PLC0415 (slow to import, rarely needed)

        structlog.get_logger(__name__).warning(
            "control_token_not_written",
            directory=str(directory),
            error=_why(error),
            remedy="set PENSTOCK_CONTROL_TOKEN or a writable PENSTOCK_RUNTIME_DIR",
            effect="`penstock restart` and `penstock prestop` will not be authorised",
        )
    return token


def _write(folder: int, token: str) -> None:
    import secrets  # noqa: PLC0415 (as above)

    # Not named after the process: in a container that is 1 every time, and a leftover of a
    # killed run would stand in the way.
    temporary = f".{paths.TOKEN_FILE}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(file, "w") as stream:
            os.fchmod(stream.fileno(), 0o600)  # whatever the umask
            stream.write(token + "\n")
        os.rename(temporary, paths.TOKEN_FILE, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(temporary, dir_fd=folder)
        raise


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not text"
