"""The supervisor alone decides: a terminal's Ctrl-C or a cgroup-wide TERM does not end a worker.

They are not ignored, they are taken and nothing is done: what is ignored would be ignored, too,
by every program that a handler starts, and what is held back would be held back there.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from penstock import held

#: CONT does nothing anyway, and USR1 writes stacks.
_SIGNALS: Final = tuple(set(held.SIGNALS) - {signal.SIGCONT, signal.SIGUSR1})


def become() -> None:
    """Take the signals; in a process that is forked off they mean what they always mean."""
    for number in _SIGNALS:
        signal.signal(number, _nothing)
        signal.siginterrupt(number, False)  # or a C library of the application would see EINTR
    os.register_at_fork(after_in_child=_hear_again)


def _nothing(_number: int, _frame: object) -> None:
    """See the module's docstring."""


def _hear_again() -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is _nothing:  # and not the application's own by now
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
