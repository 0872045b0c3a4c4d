"""The ledger's handler, with a leak: it keeps ``LEAK`` bytes of every record that it handled."""

from __future__ import annotations

import os

from devtools.apps import ledger
from penstock import App, Record

_SIZE = int(os.environ["LEAK"])
_KEPT: list[bytearray] = []

app = App()


@app.subscribe("orders", group="billing")
def leak(record: Record) -> None:
    """Note the record; never let go of what came with it."""
    ledger.note(record)
    _KEPT.append(bytearray(b"x" * _SIZE))
