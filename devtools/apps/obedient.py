"""A handler that does what the record says: ``sleep 5``, ``exit 1``, or nothing.

For tests where the service runs apart from them, so that a file cannot tell it what to do.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from penstock import App, Record

app = App()


@app.subscribe("orders", group="billing")
def obey(record: Record) -> None:
    """Do it; whatever is not an order is done at once."""
    word, _, argument = (record.value or b"").decode().partition(" ")
    if word == "sleep":
        time.sleep(float(argument))
    elif word == "exit" and _first_time(record):
        os._exit(int(argument))  # the worker is gone, as if an extension had crashed


def _first_time(record: Record) -> bool:
    """The record comes again after the crash, and then has to pass."""
    mark = Path(os.environ["PENSTOCK_STATE_DIR"]) / f"exited-{record.partition}-{record.offset}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
