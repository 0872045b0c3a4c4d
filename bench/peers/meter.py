"""What every peer's app shares; the standard library only, for it runs in all environments.

An app reads BOOTSTRAP, TOPIC, GROUP, WORK and CONCURRENCY, and calls ``note(value)`` when the
handler has done WORK seconds of work. With ``PEER_LEDGER`` a note is a line in that
file, as ``devtools.apps.ledger`` writes it (but for the offset: handlers need not look it up,
and in the stream's topics it is the sequence); without, records are counted: from
``PEER_WARM_UP`` seconds after the first, or a fifth of all (what a client has fetched ahead by
then, it has fetched ahead at the end as well), until ``PEER_TOTAL`` records or
``PEER_SECONDS`` later. ``PEER_RESULT`` then says how it went.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BOOTSTRAP = os.environ["PEER_BOOTSTRAP"]
TOPIC = os.environ["PEER_TOPIC"]
GROUP = os.environ["PEER_GROUP"]
WORK = float(os.environ.get("PEER_WORK", "0"))
CONCURRENCY = int(os.environ.get("PEER_CONCURRENCY", "1"))
VARIANT = os.environ.get("PEER_VARIANT", "")

_PID = os.getpid()


def one_at_a_time() -> None:
    """For a peer that offers nothing else."""
    if CONCURRENCY != 1:
        raise SystemExit("this peer handles one record at a time: PEER_CONCURRENCY must be 1")


class _Ledger:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, value: bytes | None) -> None:
        partition, sequence = (value or b"").split()[:2]
        line = b"%s %s %s %d %.6f\n" % (partition, sequence, sequence, _PID, time.monotonic())
        os.write(self._file, line)


class _Counter:
    """Looks at the clock once in 64 records: some nanoseconds a record."""

    def __init__(self) -> None:
        self._total = int(os.environ["PEER_TOTAL"])
        self._seconds = float(os.environ["PEER_SECONDS"])
        self._warm_up = float(os.environ["PEER_WARM_UP"])
        self._result = Path(os.environ["PEER_RESULT"])
        self._seen = 0
        self._look_at = 1
        self._came = 0.0
        self._began: tuple[float, int] | None = None

    def note(self, _value: bytes | None) -> None:
        self._seen += 1
        if self._seen >= self._look_at:
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        self._came = self._came or now
        warm = now - self._came >= self._warm_up or self._seen >= self._total // 5
        if self._began is None and warm:
            self._began = now, self._seen
        over = self._began is not None and now - self._began[0] >= self._seconds
        if over or self._seen >= self._total:
            began, before = self._began or (self._came, 1)
            temporary = self._result.with_suffix(".tmp")
            temporary.write_text(f"{began} {now} {self._seen - before}")
            temporary.rename(self._result)
            self._look_at = 1 << 62
        else:
            self._look_at = min(self._total, self._seen + 64)


note = (_Ledger(os.environ["PEER_LEDGER"]) if os.environ.get("PEER_LEDGER") else _Counter()).note
