"""Which request wins when there are several."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from devtools.load import Ledger, Load, Trap
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]
Busy = Callable[..., Service]


@pytest.fixture
def busy(launch: Launch, load_for: LoadFor, ledger: Ledger, trap: Trap) -> Busy:
    """Make a service whose drain lasts until the trap is sprung: a handler waits for that."""

    def make(**settings: object) -> Service:
        service = launch(**settings).start().until_ready()
        trap.set(0, 0, "wait")
        load_for(service, partitions=1).stream.send(1)
        service.until(lambda: ledger.count() == 1, "the record in the handler")
        return service

    return make


def until_draining(service: Service) -> None:
    service.until(lambda: service.status().get("state") == "draining", "the drain")


def outcomes(service: Service) -> list[str]:
    return [line["outcome"] for line in service.log_lines("request")]


def test_usr2_then_term_is_a_stop(busy: Busy, trap: Trap) -> None:
    service = busy()
    service.send(signal.SIGUSR2)
    until_draining(service)
    assert service.get("/livez")[0] == 200
    assert service.get("/readyz")[0] == 503
    service.send(signal.SIGTERM)
    service.until(lambda: len(outcomes(service)) == 2, "the second request")
    trap.spring()
    assert service.wait() == 0
    assert outcomes(service) == ["accepted", "upgraded"]


def test_term_then_usr2_stays_a_stop(busy: Busy, trap: Trap) -> None:
    service = busy()
    service.send(signal.SIGTERM)
    until_draining(service)
    service.send(signal.SIGUSR2)
    service.until(lambda: len(outcomes(service)) == 2, "the second request")
    code, body = service.post("/restart")
    assert code == 409
    assert "SIGTERM" in json.loads(body)["detail"]
    trap.spring()
    assert service.wait() == 0
    assert outcomes(service) == ["accepted", "refused", "refused"]


def test_usr2_twice_and_posts_at_once_are_one_restart(busy: Busy, trap: Trap) -> None:
    service = busy()
    with ThreadPoolExecutor(2) as pool:
        codes = [answer[0] for answer in pool.map(service.post, ["/restart"] * 2)]
    assert codes == [202, 202]
    until_draining(service)
    service.send(signal.SIGUSR2)
    service.until(lambda: len(outcomes(service)) == 3, "the third request")
    service.send(signal.SIGUSR2)
    service.until(lambda: len(outcomes(service)) == 4, "the fourth request")
    trap.spring()
    assert service.wait() == 4
    assert outcomes(service) == ["accepted", *["repeated"] * 3]


def test_second_int_forces(busy: Busy) -> None:
    service = busy()
    service.send(signal.SIGINT)
    until_draining(service)
    service.send(signal.SIGINT)
    assert service.wait(10) == 2
    record = service.exit_record()
    assert record["name"] == "FORCED"
    (held,) = record["in_flight_at_deadline"]
    assert (held["partition"], held["offset"], held["key"]) == (0, 0, "0")


def test_term_in_the_middle_of_a_held_drain_releases_it(busy: Busy, trap: Trap) -> None:
    service = busy()
    assert service.post("/restart", hold=True)[0] == 202
    until_draining(service)
    service.send(signal.SIGTERM)
    service.until(lambda: len(outcomes(service)) == 2, "the release")
    trap.spring()
    assert service.wait() == 4
    assert outcomes(service) == ["accepted", "released"]


def test_int_turns_a_held_restart_into_a_stop(launch: Launch) -> None:
    service = launch().start().until_ready()
    assert service.post("/restart", hold=True)[0] == 202
    service.until(lambda: service.status().get("workers") == [], "the drain to end")
    assert service.stop(signal.SIGINT) == 0


def test_held_restart_that_nobody_releases_ends_with_its_budget(launch: Launch) -> None:
    service = launch(drain_timeout=3).start().until_ready()
    assert service.post("/restart", hold=True)[0] == 202
    assert service.wait() == 4
    record = service.exit_record()
    assert record["drain_seconds"] < 3  # the time held is not part of the drain
