"""Penstock: ``penstock run bench.peers.penstock.app:app``, default settings."""

from __future__ import annotations

import time

from bench.peers.meter import CONCURRENCY, GROUP, TOPIC, WORK, note
from penstock import App, Record

app = App()


@app.subscribe(TOPIC, group=GROUP, concurrency=CONCURRENCY)
def handle(record: Record) -> None:
    if WORK:
        time.sleep(WORK)
    note(record.value)
