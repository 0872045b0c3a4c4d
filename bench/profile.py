"""Where a worker's time goes: lines of code, sampled a thousand times a second.

A thread in the worker looks at the other threads' innermost lines. One that waits (a lock, the
network) is left out, so what remains is what ran or wanted to run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service

TOTAL = 300_000
PARTITIONS = 12
TOP = 6
WAYS = {"records": "Record, by partition", "by_key": "Record, by key", "async_by_key": "async"}
_PAUSE = 0.001
#: Functions whose innermost Python line is where they wait.
_WAITS = {"wait", "select", "_listen", "_watch", "__enter__", "_acquire_restore", "join"}


class Sampler:
    """Counts lines by thread until it is told to write them down."""

    def __init__(self) -> None:
        self._lines: Counter[tuple[str, str]] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)
        self._thread.start()

    def write(self, path: Path) -> None:
        """End, and write the counts as JSON: ``[thread, line, samples]``."""
        self._over.set()
        path.write_text(json.dumps([[*key, n] for key, n in self._lines.most_common()]))

    def _watch(self) -> None:
        own = threading.get_ident()
        while not self._over.wait(_PAUSE):
            names = {t.ident: t.name for t in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 (what it is for)
                code = frame.f_code
                if ident == own or code.co_name in _WAITS:
                    continue
                where = "/".join(Path(code.co_filename).parts[-2:])
                line = f"{where}:{frame.f_lineno} {code.co_qualname}"
                self._lines[names.get(ident, "?").split("-")[0], line] += 1


def main() -> None:
    """Print the lines on which most samples fell, for each way of handling."""
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        Admin(broker.bootstrap).create_topic("bench", PARTITIONS)
        fill(broker.bootstrap, "bench", PARTITIONS, TOTAL, 100, keys=1000)
        for way, title in WAYS.items():
            samples = _profiled(broker.bootstrap, way, directory)
            total = sum(number for _, _, number in samples)
            print(f"### {title}\n")
            table(
                ("thread", "line", "share"),
                (
                    (thread, f"`{line}`", f"{number / total:.1%}")
                    for thread, line, number in samples[:TOP]
                ),
            )
            print()


def _profiled(bootstrap: str, way: str, directory: Path) -> list[tuple[str, str, int]]:
    result, profile = directory / way, directory / f"{way}.json"
    service = Service(
        f"bench.apps:{way}",
        directory / f"service-{way}",
        env={
            "BENCH_TOTAL": str(TOTAL),
            "BENCH_RESULT": str(result),
            "BENCH_PROFILE": str(profile),
            "BENCH_CONCURRENCY": "4",
        },
        bootstrap_servers=bootstrap,
        topics="bench",
        group_id=f"profile-{way}",
    )
    with service:
        service.until(lambda: profile.exists() and profile.stat().st_size, "all records", 180)
        service.stop()
    return [(str(t), str(line), int(n)) for t, line, n in json.loads(profile.read_text())]


def from_environment() -> Sampler | None:
    """A sampler if this process is to be profiled."""
    return Sampler() if os.environ.get("BENCH_PROFILE") else None
