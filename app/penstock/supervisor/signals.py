"""Signals become bytes in a pipe, and bytes become requests on the main thread.

Nothing is decided in a signal handler: the C part of Python writes the signal's number to
the wake-up descriptor, the Python part does nothing at all.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import Final

from penstock.lifecycle import Kind, Request

REQUESTS: Final[dict[int, Request]] = {
    signal.SIGTERM: Request(Kind.STOP, "signal", "SIGTERM", releases_hold=True),
    signal.SIGINT: Request(Kind.STOP, "signal", "SIGINT", interactive=True),
    signal.SIGQUIT: Request(Kind.STOP, "signal", "SIGQUIT"),
    signal.SIGUSR2: Request(Kind.RESTART, "signal", "SIGUSR2"),
    signal.SIGHUP: Request(Kind.RELOAD, "signal", "SIGHUP"),
    signal.SIGTSTP: Request(Kind.QUIET, "signal", "SIGTSTP"),
    signal.SIGCONT: Request(Kind.RESUME, "signal", "SIGCONT"),
    signal.SIGTTIN: Request(Kind.DUMP, "signal", "SIGTTIN"),
}


class WakePipe:
    """A pipe that signals, and other threads, write to, and the main loop selects on."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """For selectors."""
        return self._read

    def install(self) -> None:
        """Take the signals over. Main thread only."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*REQUESTS, signal.SIGCHLD):
            signal.signal(number, _only_recorded)
        # Otherwise a stray USR1 (the workers' stack dump) would end the supervisor.
        faulthandler.register(signal.SIGUSR1, all_threads=True)

    def wake(self) -> None:
        """Make the main loop look around, from any thread."""
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:
            pass  # full: it is awake enough

    def drain(self) -> list[int]:
        """The signal numbers that came, in order."""
        try:
            data = os.read(self._read, 4096)
        except BlockingIOError:
            return []
        return [number for number in data if number]


def _only_recorded(_number: int, _frame: object) -> None:
    """See the module's docstring."""
