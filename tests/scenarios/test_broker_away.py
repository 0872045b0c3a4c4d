"""A broker that is not there, goes, or cannot be reached: wait, go on, lose nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.broker import Admin, Broker
from devtools.service import Service, free_port
from devtools.stream import Stream
from tests.scenarios.support import QUICK_SESSION, Make, finish, lines, until_handled

WAITING = "no broker answered; trying again"


def absent(make: Make) -> Service:
    """A service whose broker is not there, waiting for it."""
    service = make(bootstrap_servers=f"127.0.0.1:{free_port()}").start()
    service.until_logged(WAITING)
    return service


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR2, 4)])
def test_leaving_while_the_broker_is_absent(make_service: Make, number: int, code: int) -> None:
    service = absent(make_service)
    assert service.get("/livez")[0] == 200
    assert service.get("/readyz")[0] == 503
    assert service.get("/startupz")[0] == 503
    began = time.monotonic()
    assert service.stop(number) == code
    assert time.monotonic() - began < 5
    assert service.exit_record()["planned"] is True


def test_tries_again_with_growing_pauses_and_says_why(make_service: Make) -> None:
    service = absent(make_service)
    service.until(lambda: len(service.log_lines(WAITING)) >= 2, "second try", 60)
    first, second = service.log_lines(WAITING)[:2]
    assert (first["tries"], second["tries"]) == (1, 2)
    assert "ECONNREFUSED" in first["error"]
    assert service.stop() == 0


@pytest.fixture
def orders(own_broker: Broker) -> str:
    Admin(own_broker.bootstrap).create_topic("orders", 12)
    return "orders"


def test_broker_that_comes_later(
    make_service: Make, own_broker: Broker, orders: str, group: str, tmp_path: Path
) -> None:
    Stream(own_broker.bootstrap, orders, 12, rate=1).send(240)
    own_broker.stop()
    service = make_service(
        bootstrap_servers=own_broker.bootstrap, topics=orders, group_id=group
    ).start()
    service.until_logged(WAITING)
    assert service.get("/readyz")[0] == 503
    own_broker.start()
    service.until_ready(60)
    service.until(lambda: lines(tmp_path / "ledger") >= 240, "all records")
    assert service.stop() == 0


class Probe:
    """Remembers whether liveness ever failed, from one look to the next."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.answers: set[int] = set()

    def look(self) -> bool:
        """One look; true, so that it can stand in a condition."""
        self.answers.add(self._service.get("/livez")[0])
        return True

    def until_handled(self, ledger: Path, more: int) -> None:
        """Look until so many more records are noted."""
        before = lines(ledger)
        self._service.until(
            lambda: self.look() and lines(ledger) > before + more, "records again", 90
        )


def test_broker_killed_and_restarted_under_load(
    make_service: Make, own_broker: Broker, orders: str, group: str, tmp_path: Path
) -> None:
    # What the broker confirmed must be on its disk when it is killed.
    service = make_service(
        bootstrap_servers=own_broker.bootstrap, topics=orders, group_id=group, **QUICK_SESSION
    )
    service.start().until_ready()
    stream = Stream(own_broker.bootstrap, orders, 12, rate=500).start()
    ledger, probe = tmp_path / "ledger", Probe(service)
    for _ in range(2):
        until_handled(service, ledger, 500)
        own_broker.kill()
        probe.look()
        own_broker.restart()
        probe.until_handled(ledger, 500)
    report = finish(stream, [service], tmp_path)
    assert probe.answers == {200}
    assert (report.lost, report.disordered, report.unknown) == (0, 0, 0), str(report)


@pytest.fixture
def cuttable(own_broker: Broker) -> Iterator[Broker]:
    yield own_broker
    own_broker.proxy.heal()


def test_network_cut_for_longer_than_the_session(
    make_service: Make, cuttable: Broker, orders: str, group: str, tmp_path: Path
) -> None:
    admin = Admin(cuttable.bootstrap)
    service = make_service(
        bootstrap_servers=cuttable.proxied_bootstrap,
        topics=orders,
        group_id=group,
        **QUICK_SESSION,
    )
    service.start().until_ready()
    stream = Stream(cuttable.bootstrap, orders, 12, rate=200).start()
    ledger, probe = tmp_path / "ledger", Probe(service)
    until_handled(service, ledger, 200)
    cuttable.proxy.cut("drop")
    service.until(lambda: probe.look() and not admin.group_members(group), "the session's end")
    cuttable.proxy.heal()
    until_handled(service, ledger, 500, timeout=90)
    probe.look()
    report = finish(stream, [service], tmp_path)
    assert probe.answers == {200}
    assert (report.lost, report.disordered, report.unknown) == (0, 0, 0), str(report)


def test_restart_while_the_network_is_cut_with_nothing_uncommitted(
    make_service: Make, cuttable: Broker, orders: str, group: str, tmp_path: Path
) -> None:
    admin = Admin(cuttable.bootstrap)
    service = make_service(
        bootstrap_servers=cuttable.proxied_bootstrap,
        topics=orders,
        group_id=group,
        drain_timeout=8,
    )
    service.start().until_ready()
    Stream(cuttable.bootstrap, orders, 12, rate=1).send(120)
    service.until(lambda: sum(admin.committed_offsets(group, orders).values()) == 120, "commits")
    service.until(
        lambda: (
            service.metrics().get('penstock_commits_total{outcome="ok"}', 0) >= 1
            and service.status()
        ),
        "the commit's confirmation",
    )
    cuttable.proxy.cut("drop")
    began = time.monotonic()
    assert service.stop(signal.SIGUSR2) == 4
    assert time.monotonic() - began < 8 + 1
    assert lines(tmp_path / "ledger") == 120


def test_restart_while_the_network_is_cut_with_finished_work(
    make_service: Make, cuttable: Broker, orders: str, group: str, tmp_path: Path
) -> None:
    service = make_service(
        bootstrap_servers=cuttable.proxied_bootstrap,
        topics=orders,
        group_id=group,
        drain_timeout=6,
        commit_interval=3600,  # whatever is finished is committed by the drain, or not at all
    )
    service.start().until_ready()
    Stream(cuttable.bootstrap, orders, 12, rate=1).send(120)
    service.until(lambda: lines(tmp_path / "ledger") >= 120, "all records")
    cuttable.proxy.cut("drop")
    began = time.monotonic()
    assert service.stop(signal.SIGUSR2) == 2
    assert time.monotonic() - began < 6 + 1
    assert "commit" in service.exit_record()["reason"]
