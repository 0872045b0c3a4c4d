"""Threads whose end does not go unnoticed."""

from __future__ import annotations

import threading
from collections.abc import Callable

Ended = Callable[[str, BaseException | None], None]
"""Told the name of a thread that ended while it should live, and what it raised, if anything."""


def watched(
    live: Callable[[], object], may_end: Callable[[], bool], ended: Ended
) -> Callable[[], None]:
    """``live`` as the target of a thread.

    ``ended`` is told, on that thread, when it raised, or returned before ``may_end()``.
    """

    def run() -> None:
        error: BaseException | None = None
        try:
            live()
        except BaseException as raised:
            error = raised
        if error is not None or not may_end():
            ended(threading.current_thread().name, error)

    return run
