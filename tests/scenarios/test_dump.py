"""TTIN: where every thread of every process stands, also of one that cannot answer."""

from __future__ import annotations

import signal
from collections.abc import Callable

from devtools.load import Load, Trap
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]


def test_stacks_of_every_process(launch: Launch, load_for: LoadFor, trap: Trap) -> None:
    service = launch(workers=2).start().until_ready()
    service.until(
        lambda: all(w["assignment"] for w in service.status()["workers"]), "an assignment for both"
    )
    trap.set(0, 0, "gil", 10)
    load_for(service, partitions=1).stream.send(1)

    def holder() -> list[int]:
        return [w["index"] for w in service.status()["workers"] if w["in_flight"]]

    service.until(holder, "the record in the handler")
    (stuck,) = holder()
    service.send(signal.SIGTTIN)
    service.until(lambda: any("worker" in s for s in service.log_lines("stack")), "its stacks")
    told = service.log_lines("stack")
    by_process = {p: [s for s in told if s["process"] == p] for p in {s["process"] for s in told}}
    assert "penstock-http" in {s.get("thread") for s in by_process["supervisor"]}
    assert "MainThread" in {s.get("thread") for s in by_process["supervisor"]}
    threads = {s["thread"] for s in by_process[f"worker-{1 - stuck}"]}
    assert {"MainThread", "control", "handler-0"} <= threads
    (forced,) = [s for s in told if "worker" in s]
    assert forced["worker"] == stuck
    assert "_hold_gil" in forced["stack"]
    assert service.get("/livez")[0] == 200
    assert service.stop() == 0
