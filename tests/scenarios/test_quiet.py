"""TSTP takes nothing new and keeps the assignment; CONT goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

from devtools.broker import Admin
from devtools.load import Ledger, Load
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]


def produced(load: Load, goal: int) -> bool:
    return load.stream.produced >= goal


def until_quiet(service: Service) -> None:
    def quiet() -> bool:
        status = service.status()
        workers = status.get("workers", [])
        return (
            status.get("state") == "quiet"
            and all(w["state"] == "quiet" and not w["in_flight"] for w in workers)
            and bool(workers)
        )

    service.until(quiet, "quiet")


def test_quiet_resume_and_restart_while_quiet(
    launch: Launch, load_for: LoadFor, ledger: Ledger, admin: Admin, group: str
) -> None:
    service = launch("devtools.apps.ledger:app").start().until_ready()
    load = load_for(service).start()
    members = admin.group_members(group)
    for _ in range(2):
        service.send(signal.SIGTSTP)
        until_quiet(service)
        before, goal = ledger.count(), load.stream.produced + 300
        service.until(partial(produced, load, goal), "more in the stream")
        assert ledger.count() == before
        assert service.get("/readyz")[0] == 503
        assert service.get("/livez")[0] == 200
        assert admin.group_members(group) == members
        service.send(signal.SIGCONT)
        load.until_more(100)
        service.until_ready()
    service.send(signal.SIGTSTP)
    until_quiet(service)
    assert service.stop(signal.SIGUSR2) == 4
    report = load.report()
    assert report.perfect, str(report)


def test_quiet_while_starting(launch: Launch, load_for: LoadFor, ledger: Ledger) -> None:
    service = launch("devtools.apps.ledger:app")
    work = load_for(service)
    work.stream.send(24)
    service.start()
    service.until(service.workers, "the workers")  # by then the signals are taken
    service.send(signal.SIGTSTP)
    until_quiet(service)
    assert service.get("/readyz")[0] == 503
    assert ledger.count() == 0
    service.send(signal.SIGCONT)
    service.until_ready()
    report = work.report()
    assert report.perfect, str(report)
