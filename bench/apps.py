"""Handlers that do nothing but count, and note when the first and the last record came."""

from __future__ import annotations

import os
import time
from pathlib import Path

from penstock import App, Record

_TOTAL = int(os.environ.get("BENCH_TOTAL", "0"))
_RESULT = Path(os.environ.get("BENCH_RESULT", "bench-result"))

count = 0
first = 0.0
cpu = 0.0

records = App()
batches = App()


def _counted(number: int) -> None:
    global count, first, cpu  # noqa: PLW0603 (one counter in one process)
    if not count:
        first, cpu = time.monotonic(), time.process_time()
    count += number
    if count >= _TOTAL:
        took, used = time.monotonic() - first, time.process_time() - cpu
        temporary = _RESULT.with_suffix(".tmp")
        temporary.write_text(f"{took} {used}")
        temporary.rename(_RESULT)


@records.subscribe("bench", group="bench")
def one(_record: Record) -> None:
    _counted(1)


@batches.subscribe("bench", group="bench")
def many(batch: list[Record]) -> None:
    _counted(len(batch))
