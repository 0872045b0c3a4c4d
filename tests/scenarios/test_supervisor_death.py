"""The supervisor is killed: workers finish by themselves, and the next start tells of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from devtools.load import Load
from devtools.service import Service, alive

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]
DEADLINE = 30.0


def until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + DEADLINE
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"still there: {[p for p in pids if alive(p)]}"
        time.sleep(0.02)  # the poll interval of a wait on a condition


def test_workers_finish_and_the_loss_is_counted(launch: Launch, load_for: LoadFor) -> None:
    service = launch("devtools.apps.ledger:app", workers=2).start().until_ready()
    load = load_for(service).start()
    workers = service.workers()
    assert len(workers) == 2
    assert service.stop(signal.SIGKILL) == 137
    until_gone(workers)
    service.start().until_ready()
    metrics = service.metrics()
    assert metrics['penstock_exits_total{code="unknown",name="LOST",planned="false"}'] == 1
    assert metrics["penstock_unplanned_exits_total"] == 1
    status = service.status()
    assert status["last_exit"]["name"] == "LOST"
    assert [e["count"] for e in status["exits"] if e["name"] == "LOST"] == [1]
    report = load.report()
    assert report.perfect, str(report)
