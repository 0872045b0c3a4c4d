"""A handler that notes every record it handled, one atomic line each.

``LEDGER`` is the file, ``LEDGER_SLEEP`` seconds of work a record. A line is
``partition sequence offset pid monotonic-time``: what the checker reads, and nothing else
is shared with it.
"""

from __future__ import annotations

import os
import time

from penstock import App, Record

_WORK = float(os.environ.get("LEDGER_SLEEP", "0"))
_FILE = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_PID = os.getpid()

app = App()


@app.subscribe("orders", group="billing")
def note(record: Record) -> None:
    """Work, then note: a record that was cut off in the middle is not in the ledger."""
    if _WORK:
        time.sleep(_WORK)
    partition, sequence = (record.value or b"").split()[:2]
    line = b"%s %s %d %d %.6f\n" % (partition, sequence, record.offset, _PID, time.monotonic())
    os.write(_FILE, line)
