"""The ledger's handler, which misbehaves at one record, in one way, while a file says so.

``MISCHIEF`` names the file (see :class:`devtools.load.Trap`); its one line is ``partition
sequence deed seconds``. The record is noted *before* the deed, so that a record that is
handled again shows as repeated.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from devtools.apps import ledger
from penstock import App, Record

_FILE = Path(os.environ["MISCHIEF"])

app = App()


@app.subscribe("orders", group="billing")
def misbehave(record: Record) -> None:
    """Note the record; then do the deed if it is the one."""
    ledger.note(record)
    try:
        partition, sequence, deed, seconds = _FILE.read_text().split()
    except FileNotFoundError:
        return
    if (record.value or b"").split()[:2] == [partition.encode(), sequence.encode()]:
        _DEEDS[deed](float(seconds))


def _wait(_seconds: float) -> None:
    while _FILE.exists():
        time.sleep(0.02)  # the poll interval of a wait on a condition


def _hold_gil(seconds: float) -> None:
    """``PyDLL`` calls C without letting go of the GIL, as a careless extension does."""
    ctypes.PyDLL(None).sleep(int(seconds))


def _segfault(_seconds: float) -> None:
    ctypes.string_at(0)


def _out_of_memory(_seconds: float) -> None:
    hoard: list[bytes] = []
    while len(hoard) < 64:  # a GiB: more than the limit, less than the machine
        hoard.append(b"x" * (1 << 24))


def _raise(_seconds: float) -> None:
    raise RuntimeError("mischief")


def _leave_thread(seconds: float) -> None:
    threading.Thread(target=time.sleep, args=(seconds,), daemon=False).start()


_DEEDS: dict[str, Callable[[float], object]] = {
    "wait": _wait,
    "sleep": time.sleep,
    "gil": _hold_gil,
    "segfault": _segfault,
    "memory": _out_of_memory,
    "raise": _raise,
    "thread": _leave_thread,
    "os-exit": lambda _: os._exit(0),
    "sys-exit": lambda _: sys.exit(0),
}
