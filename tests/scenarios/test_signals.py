"""Every way to ask for an end, idle and under load, and the exit code it earns."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from devtools.load import Load
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]
Way = tuple[Callable[[Service], object], int, str]


def sending(number: signal.Signals) -> Callable[[Service], object]:
    return lambda service: service.send(number)


def posting(service: Service) -> None:
    code, _ = service.post("/restart", reason="new certificates")
    assert code == 202


def until_drained(service: Service) -> None:
    service.until(lambda: service.status().get("workers") == [], "the drain to end")


def held(service: Service) -> None:
    """A held restart stays up after its drain, until TERM lets it go."""
    code, _ = service.post("/restart", hold=True)
    assert code == 202
    until_drained(service)
    assert service.get("/livez")[0] == 200
    assert service.get("/readyz")[0] == 503
    service.send(signal.SIGTERM)


def prestop(service: Service) -> None:
    """What the kubelet does: the hook, and TERM once it has returned."""
    hook = service.command("prestop")
    assert (hook.returncode, hook.stdout) == (0, "drained\n"), hook.stderr
    service.send(signal.SIGTERM)


WAYS: dict[str, Way] = {
    "TERM": (sending(signal.SIGTERM), 0, "SIGTERM"),
    "INT": (sending(signal.SIGINT), 0, "SIGINT"),
    "QUIT": (sending(signal.SIGQUIT), 0, "SIGQUIT"),
    "USR2": (sending(signal.SIGUSR2), 4, "SIGUSR2"),
    "POST": (posting, 4, "POST /restart"),
    "held": (held, 4, "POST /restart"),
    "prestop": (prestop, 4, "preStop"),
}


def end(service: Service, way: Way) -> None:
    ask, code, by = way
    ask(service)
    assert service.wait() == code, service.log_tail()
    record = service.exit_record()
    assert (record["code"], record["planned"], record["requested_by"]) == (code, True, by)
    assert record["drain_seconds"] is not None
    assert record["in_flight_at_deadline"] == []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_idle(launch: Launch, way: Way) -> None:
    service = launch("devtools.apps.ledger:app").start().until_ready()
    end(service, way)


def test_under_load_nothing_is_lost_or_repeated(launch: Launch, load_for: LoadFor) -> None:
    """Every way in turn, with one stream that never stops."""
    service = launch("devtools.apps.ledger:app")
    load = load_for(service, rate=1_000)
    for name, way in WAYS.items():
        service.start().until_ready()
        if name == "TERM":
            load.start()
        load.until_more(300)
        end(service, way)
    report = load.report()
    assert report.perfect, str(report)


def test_under_load_with_slow_handlers_and_two_workers(launch: Launch, load_for: LoadFor) -> None:
    """More comes than is done: what was fetched waits in the workers when the word comes."""
    service = launch("devtools.apps.ledger:app", slow=0.02, workers=2, concurrency=4)
    service.start().until_ready()
    load = load_for(service, rate=400).start()
    for way in (WAYS["USR2"], WAYS["prestop"]):
        load.until_more(100)
        end(service, way)
        service.start().until_ready()
    report = load.report()
    assert report.perfect, str(report)
