"""``penstock run penstock.log_records:app``: log every record, for a first look at a topic.

The handler of the image and of the chart when none of your own is given. Topics and group
come from ``PENSTOCK_TOPICS`` and ``PENSTOCK_GROUP_ID``. Keys and values may be personal data:
this is for trying out, not for keeping.
"""

from __future__ import annotations

import structlog

from penstock.app import App
from penstock.record import Record, printable

#: Of a value, in bytes: enough to recognise it.
_SHOWN = 200

log = structlog.get_logger("penstock.log_records")

app = App()


@app.subscribe()
def log_record(record: Record) -> None:
    """One log line a record."""
    value = record.value
    log.info(
        "record",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=printable(record.key),
        value=None if value is None else value[:_SHOWN].decode(errors="replace"),
        bytes=0 if value is None else len(value),
    )
