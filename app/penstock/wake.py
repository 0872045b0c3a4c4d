"""A pipe that wakes a thread which waits in ``select`` or ``poll``."""

from __future__ import annotations

import contextlib
import os


class WakePipe:
    """Written to by signals and other threads, waited on by one."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The reading end, for selectors."""
        return self._read

    @property
    def writer(self) -> int:
        """The writing end, for ``signal.set_wakeup_fd``."""
        return self._write

    def wake(self) -> None:
        """Wake the waiting thread; from any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake enough
            os.write(self._write, b"\0")

    def drain(self) -> list[int]:
        """What was written, in order; ``wake`` counts as 0 and is left out."""
        try:
            data = os.read(self._read, 4096)
        except BlockingIOError:
            return []
        return [number for number in data if number]
