"""A board in a file of the state directory: made by the supervisor, written by a worker.

A worker's board moves here when it starts to consume. The next run finds the file if nobody
was left to take it away, and reads what was held when everything died at once.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from penstock.board import Board, size_of

#: What makes a file a board, its number of slots, its consumer group.
_LABEL: Final = struct.Struct("<8sI256p")
_LABEL_AT: Final = 32
_MAGIC: Final = b"penbrd1\0"

#: A file that says more is none of ours.
_MOST_SLOTS: Final = 1024

_SAFE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def create(path: Path, slots: int, group: str) -> Board:
    """A new board, mode 0600; ``group`` is its worker's.

    The space is taken at once: writing to a mapped file whose disk is full is a SIGBUS. (Where
    a file system copies on write, as btrfs does, that is a promise it need not keep.)

    Raises:
        OSError: it cannot be made, or there is no room.
    """
    fd = os.open(path, _SAFE | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_of(slots))
        os.pwrite(fd, _LABEL.pack(_MAGIC, slots, group.encode()), _LABEL_AT)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return Board(fd, slots)


def reopen(path: Path) -> tuple[Board, str]:
    """The board that :func:`create` made, and its group.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no board.
    """
    fd = os.open(path, _SAFE)
    try:
        slots, group = _label(fd, path)
    except (OSError, ValueError):
        os.close(fd)
        raise
    return Board(fd, slots), group


def move(board: Board, path: Path) -> None:
    """Have a worker's board go on in the file at ``path``; nobody may be writing yet.

    The file is locked for as long as this process lives, so that a later run does not take
    what is still held for what was held at a death.

    Raises:
        OSError, ValueError: it cannot be used; the board stays where it is.
    """
    fd = os.open(path, _SAFE)
    try:
        slots, _ = _label(fd, path)
        if slots < board.slots:
            raise ValueError(f"{path.name} has {slots} slots, {board.slots} are needed")  # noqa: TRY301 (closed below)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        board.move(fd)
    except (OSError, ValueError):
        os.close(fd)
        raise


def is_in_use(board: Board) -> bool:
    """Whether the process that :func:`move` was called in still lives."""
    try:
        fcntl.flock(board.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(board.fd, fcntl.LOCK_UN)
    return False


def _label(fd: int, path: Path) -> tuple[int, str]:
    raw = os.pread(fd, _LABEL.size, _LABEL_AT)
    magic, slots, group = _LABEL.unpack(raw.ljust(_LABEL.size, b"\0"))
    if magic != _MAGIC or not 0 < slots <= _MOST_SLOTS:
        raise ValueError(f"{path.name} is no board")
    if os.fstat(fd).st_size < size_of(slots):
        raise ValueError(f"{path.name} is cut")
    return slots, group.decode(errors="replace")
