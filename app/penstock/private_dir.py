"""A directory that nobody else controls, in a place where everybody may write (``/tmp``)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from penstock.errors import ConfigError


def open_private(directory: Path, what: str, setting: str) -> int:
    """Make the directory if need be; open it and make sure that nobody else controls it.

    The checks are made on the open directory, and files are made through it, so that it
    cannot be exchanged in between. ``what`` is its name in a sentence ("runtime directory"),
    ``setting`` moves it.

    Raises:
        ConfigError: it is someone else's, or others may write to it, or it is a link.
        OSError: it cannot be made or opened.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if directory.is_symlink() or not directory.is_dir():
            link = "not a directory (or a symbolic link)"
            raise ConfigError(_refusal(directory, link, what, setting)) from None
    if (problem := _others(directory.lstat())) is not None:  # also where it may not be opened
        raise ConfigError(_refusal(directory, problem, what, setting))
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if (problem := _others(os.fstat(folder))) is not None:
        os.close(folder)
        raise ConfigError(_refusal(directory, problem, what, setting))
    return folder


def _others(seen: os.stat_result) -> str | None:
    """Who else has a hand in it; ``None`` if nobody has."""
    if seen.st_uid != os.getuid():
        return f"owned by uid {seen.st_uid}, not by {os.getuid()}"
    if seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"writable by others (mode {stat.S_IMODE(seen.st_mode):04o})"
    return None


def _refusal(directory: Path, problem: str, what: str, setting: str) -> str:
    return (
        f"the {what} {directory} is {problem}: remove it, or set "
        f"{setting} to a path below it that Penstock makes itself"
    )
