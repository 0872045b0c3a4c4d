"""Several subscriptions in one application, one of them for all topics of a pattern.

Run it from the repository, with a broker on port 9092 (``make kafka``)::

    PENSTOCK_BOOTSTRAP_SERVERS=localhost:9092 penstock run examples/several.py:app

Each has worker processes of its own: ``PENSTOCK_WORKERS=2`` makes four. ``ARCHIVE`` is the
directory that the audit logs are kept in.
"""

import os
from pathlib import Path

from penstock import App, Record

app = App()
balance: dict[bytes | None, int] = {}


@app.subscribe("incoming", "outgoing", group="accounts", order_by="key", concurrency=4)
def post(record: Record) -> None:
    cents = int(record.value or b"0")
    sign = 1 if record.topic == "incoming" else -1
    balance[record.key] = balance.get(record.key, 0) + sign * cents


@app.subscribe(pattern=r"audit\..+", group="archive")
def keep(records: list[Record]) -> None:
    """A batch is of one partition, so of one topic; new topics that match join by themselves."""
    directory = Path(os.environ.get("ARCHIVE", "archive"))
    directory.mkdir(exist_ok=True)
    first = records[0]
    with (directory / f"{first.topic}-{first.partition}.log").open("ab") as file:
        file.writelines((r.value or b"") + b"\n" for r in records)
