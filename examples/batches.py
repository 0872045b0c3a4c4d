"""Batches into a database, each in one transaction; a repeated record changes nothing.

Run it from the repository, with a broker on port 9092 (``make kafka``)::

    PENSTOCK_BOOTSTRAP_SERVERS=localhost:9092 penstock run examples/batches.py:app

``DATABASE`` names the SQLite file.
"""

import os
import sqlite3
from contextlib import closing

from penstock import App, Batch, Record

app = App()

TABLE = """
    CREATE TABLE IF NOT EXISTS clicks (
        topic TEXT, partition INTEGER, offset INTEGER, page TEXT,
        PRIMARY KEY (topic, partition, offset)
    )
"""


@app.subscribe("clicks", group="warehouse", batch=Batch(count=1_000, wait=2.0))
def load(records: list[Record]) -> None:
    """All of a batch is committed, in both senses, or none of it.

    A crash between the two commits hands the batch over again; the primary key is what makes
    that harmless.
    """
    rows = [(r.topic, r.partition, r.offset, (r.value or b"").decode()) for r in records]
    with closing(sqlite3.connect(os.environ.get("DATABASE", "clicks.db"))) as database, database:
        database.execute(TABLE)
        database.executemany("INSERT OR IGNORE INTO clicks VALUES (?, ?, ?, ?)", rows)
