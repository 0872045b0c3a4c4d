"""Signals become bytes in a pipe, and bytes become requests on the main thread.

Nothing is decided in a signal handler: the C part of Python writes the signal's number to
the wake-up descriptor, the Python part does nothing at all.
"""

from __future__ import annotations

import faulthandler
import signal
from typing import Final

from penstock.lifecycle import Kind, Request
from penstock.wake import WakePipe

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


def install(pipe: WakePipe) -> None:
    """Take the signals over: each writes its number to ``pipe``. Main thread only.

    They are still held (:mod:`penstock.held`) until the caller releases them.
    """
    signal.set_wakeup_fd(pipe.writer, warn_on_full_buffer=False)
    for number in (*REQUESTS, signal.SIGCHLD):
        signal.signal(number, _only_recorded)
    # Otherwise a stray USR1 (the workers' stack dump) would end the supervisor.
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _only_recorded(_number: int, _frame: object) -> None:
    """See the module's docstring."""
