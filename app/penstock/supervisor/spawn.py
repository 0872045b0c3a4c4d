"""Starting a worker process.

Imports next to nothing: workers are started first, and the supervisor imports its own weight
while they import theirs.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from typing import Final

from penstock import held, processes
from penstock.arguments import MOST_CONCURRENT
from penstock.board import Board
from penstock.channel import Channel

#: The board is made before the worker has told its concurrency. Pages that are never
#: touched cost nothing.
SLOTS: Final = MOST_CONCURRENT

_numbers: Final = itertools.count()


class Spawned:
    """A process that was started, and what it shares with us."""

    def __init__(self, index: int, target: str) -> None:
        self.index = index
        self.spawned_at = time.monotonic()
        self.board = Board.create(SLOTS)
        self.stacks = _memory_file()
        self.channel, theirs = Channel.pair()
        #: Tells what it starts from what others start (:mod:`penstock.processes`).
        self.mark = f"{os.getpid()}-{next(_numbers)}"
        # Signals wait until the worker can take them: one to every process at once, from a
        # terminal or a container's runtime, is a stop, and no death of a worker that starts.
        before = held.hold()
        # -P: the working directory is on the path for the application, not before: a file of
        # its that is called ssl.py or queue.py would take the place of Python's own.
        ours = [sys.executable, "-P", "-m", "penstock.worker"]
        try:
            with theirs:
                fds = (theirs.fileno(), self.board.fd, self.stacks)
                self.popen = subprocess.Popen(  # noqa: S603 (our own module)
                    [*ours, str(index), *map(str, fds), target],
                    stdin=subprocess.DEVNULL,
                    pass_fds=fds,
                    start_new_session=True,
                    env={**os.environ, processes.MARK: self.mark},
                )
        finally:
            held.restore(before)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def signal(self, number: int) -> None:
        """Send a signal, unless it was reaped: then the id is somebody else's."""
        if self.popen.returncode is None:
            os.kill(self.popen.pid, number)

    def reaped(self, code: int) -> None:
        """It is gone; ``code`` as ``os.waitstatus_to_exitcode`` gives it."""
        self.popen.returncode = code  # or subprocess would wait for it again


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
