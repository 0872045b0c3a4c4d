"""A time limit for plain functions: an exception is raised inside the handler's thread.

Python runs it at the handler's next bytecode. A handler inside a C call that does not return
(a socket without a timeout) is reached only afterwards; liveness and the drain deadline are
for those.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from penstock.errors import HandlerTimeout
from penstock.watched import Ended, watched


class _Expired(BaseException):
    """Raised in a handler's thread. Not an ``Exception``: handlers catch those."""


class _Call:
    """A call under way. Each field is written by one thread only, and only once or twice.

    No lock: an exception that strikes while a lock is taken would leave it taken for ever.
    """

    __slots__ = ("aimed", "left", "shot", "since", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.since = time.monotonic()
        #: The handler is over (its thread).
        self.left = False
        #: About to be interrupted (the watching thread), and interrupted.
        self.aimed = False
        self.shot = False


class TimeLimit:
    """Watches the calls of all handler threads, with one thread named ``time-limit``."""

    def __init__(self, seconds: float, ended: Ended) -> None:
        """``ended`` is told when the watching thread could not go on."""
        self._seconds = seconds
        self._calls: dict[int, _Call] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=watched(self._watch, self._over.is_set, ended), name="time-limit", daemon=True
        )

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def end(self) -> None:
        """Stop watching."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def around(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """``call`` with the limit; it raises :class:`HandlerTimeout` when that is exceeded."""

        def limited(argument: Any) -> Any:
            thread = threading.get_ident()
            mine = _Call(thread)
            try:
                try:
                    self._calls[thread] = mine  # in here: from now on it may strike
                    return call(argument)
                finally:
                    _leave(mine)
            except _Expired:
                _leave(mine)  # it may have struck while leaving
                raise HandlerTimeout(f"took longer than {self._seconds:g} s") from None

        return limited

    def _watch(self) -> None:
        pause = min(0.25, self._seconds / 10)
        while not self._over.wait(pause):
            late = time.monotonic() - self._seconds
            for mine in list(self._calls.values()):
                if mine.since < late and not mine.left and not mine.aimed:
                    _interrupt(mine)


def _interrupt(mine: _Call) -> None:
    """On the watching thread. ``aimed`` first: whoever leaves after it waits for the shot."""
    mine.aimed = True
    if mine.left:
        mine.aimed = False
        return
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(mine.thread), ctypes.py_object(_Expired)
    )
    mine.shot = True


def _leave(mine: _Call) -> None:
    """On the handler's thread: from here on no exception comes, or one that came is gone."""
    mine.left = True
    while mine.aimed and not mine.shot:
        time.sleep(0)  # the other thread is between two lines
    if mine.shot:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(mine.thread), None)
