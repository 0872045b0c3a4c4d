"""Thread stacks as text: for TTIN, and for the answer to "what blocked the drain?"."""

from __future__ import annotations

import sys
import threading
import traceback


def of_thread(name: str) -> str | None:
    """The stack of the thread called ``name``, innermost call last; ``None`` if it is gone."""
    for thread in threading.enumerate():
        if thread.name == name and thread.ident is not None:
            frame = sys._current_frames().get(thread.ident)  # noqa: SLF001 (documented as public)
            return None if frame is None else "".join(traceback.format_stack(frame))
    return None


def of_all() -> dict[str, str]:
    """Every thread's stack, by thread name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, f"thread {ident}"): "".join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 (documented as public)
    }
