"""Thread stacks as text: for TTIN, and for the answer to "what blocked the drain?"."""

from __future__ import annotations

import re
import sys
import threading
import traceback
from typing import Final

#: faulthandler's line for the frame that calls the user's handler.
_HANDLING: Final = re.compile(
    r"penstock/worker/(threads|coroutines)\.py\", line \d+ in _run(_batch)?$"
)


def of_thread(name: str) -> str | None:
    """The stack of the thread called ``name``, innermost call last; ``None`` if it is gone."""
    for thread in threading.enumerate():
        if thread.name == name and thread.ident is not None:
            frame = sys._current_frames().get(thread.ident)  # noqa: SLF001 (documented as public)
            return None if frame is None else "".join(traceback.format_stack(frame))
    return None


def of_handlers(dump: str) -> str:
    """The threads of a faulthandler dump that are inside a handler, innermost call first.

    A dump of every thread is more than the journal and the termination message have room
    for, and the handler is the part that tells. The whole dump if no thread is in one.
    """
    found = []
    for thread in dump.split("\n\n"):
        lines = thread.splitlines()
        for number, line in enumerate(lines):
            if _HANDLING.search(line):
                found.append("\n".join(lines[: number + 1]))
                break
    return "\n\n".join(found) or dump


def of_all() -> dict[str, str]:
    """Every thread's stack, by thread name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, f"thread {ident}"): "".join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 (documented as public)
    }
