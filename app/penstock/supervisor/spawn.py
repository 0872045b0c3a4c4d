"""Starting a worker process.

Imports next to nothing: workers are started first, and the supervisor imports its own weight
while they import theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import Final

from penstock.arguments import MOST_CONCURRENT
from penstock.board import Board
from penstock.channel import Channel

#: The board is made before the worker has told its concurrency. Pages that are never
#: touched cost nothing.
SLOTS: Final = MOST_CONCURRENT


class Spawned:
    """A process that was started, and what it shares with us."""

    def __init__(self, index: int, target: str) -> None:
        self.index = index
        self.spawned_at = time.monotonic()
        self.board = Board.create(SLOTS)
        self.stacks = _memory_file()
        self.channel, theirs = Channel.pair()
        with theirs:
            fds = (theirs.fileno(), self.board.fd, self.stacks)
            self.popen = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-m", "penstock.worker", str(index), *map(str, fds), target],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
            )


def workers_hint() -> int:
    """How many workers to start before the settings are known; a bad value is told later."""
    try:
        return max(1, min(256, int(os.environ.get("PENSTOCK_WORKERS") or 1)))
    except ValueError:
        return 1


def _memory_file() -> int:
    try:
        return os.memfd_create("penstock-stacks")
    except (AttributeError, OSError):  # as for the board
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
