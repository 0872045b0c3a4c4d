"""Static membership: a restart in place keeps the seat, everything else gives it up."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools.broker import Admin, Broker
from devtools.service import Service
from devtools.stream import Stream
from tests.scenarios.support import (
    QUICK_SESSION,
    Make,
    assert_failed,
    finish,
    lines,
    rows,
    until,
    until_handled,
)

Seats = Mapping[str | None, tuple[str, frozenset[tuple[str, int]]]]


def seats(admin: Admin, group: str) -> Seats:
    """Member id and partitions by instance id."""
    return {m.instance_id: (m.member_id, m.partitions) for m in admin.group_members(group)}


def partitions(admin: Admin, group: str) -> dict[str | None, frozenset[tuple[str, int]]]:
    """Partitions by instance id."""
    return {instance: held for instance, (_, held) in seats(admin, group).items()}


def until_settled(admin: Admin, group: str, members: int, total: int) -> None:
    """Wait until this many members share all partitions."""

    def settled() -> bool:
        now = admin.group(group)
        held = [len(member.partitions) for member in now.members]
        return now.state == "STABLE" and len(held) == members and sum(held) == total and all(held)

    until(settled, f"{members} members with {total} partitions")


def rebalances(service: Service) -> dict[str, float]:
    return {k: v for k, v in service.metrics().items() if k.startswith("penstock_rebalances_total")}


def reload(service: Service) -> None:
    """HUP, and wait until every worker is replaced."""
    done = len(service.log_lines("reloaded"))
    service.send(signal.SIGHUP)
    service.until(lambda: len(service.log_lines("reloaded")) > done, "the reload's end")


def until_reseated(admin: Admin, group: str, before: Seats, instances: list[str]) -> None:
    """Wait until other members sit in these seats than before."""

    def reseated() -> bool:
        now = seats(admin, group)
        return all(now[each][0] != before[each][0] for each in instances)

    until(reseated, f"new members in the seats of {instances}")


@pytest.mark.parametrize(("how", "workers"), [("USR2", 2), ("HUP", 1)])
def test_restart_in_place_disturbs_nobody(
    make_service: Make,
    broker: Broker,
    admin: Admin,
    topic: str,
    group: str,
    tmp_path: Path,
    *,
    workers: int,
    how: str,
) -> None:
    def member(instance: str, count: int) -> Service:
        return make_service(
            bootstrap_servers=broker.bootstrap,
            topics=topic,
            group_id=group,
            instance_id=instance,
            workers=count,
        )

    restarted, other = member("a", workers).start(), member("b", 1).start()
    restarted.until_ready()
    other.until_ready()
    until_settled(admin, group, workers + 1, 12)
    stream = Stream(broker.bootstrap, topic, 12, rate=500).start()
    until_handled(restarted, tmp_path / "ledger", 500)
    other.until(lambda: rebalances(other), "metrics")
    held, counted = partitions(admin, group), rebalances(other)
    for _ in range(2):
        before = seats(admin, group)
        if how == "USR2":
            assert restarted.stop(signal.SIGUSR2) == 4
            restarted.start().until_ready()
        else:
            reload(restarted)
        until_reseated(admin, group, before, [f"a-{i}" for i in range(workers)])
        assert partitions(admin, group) == held
        until_handled(restarted, tmp_path / "ledger", 500)
    assert rebalances(other) == counted
    report = finish(stream, [other, restarted], tmp_path)
    assert report.perfect, str(report)


@pytest.fixture
def static(make_service: Make, broker: Broker, topic: str, group: str) -> Service:
    """One static member, ready."""
    service = make_service(
        bootstrap_servers=broker.bootstrap, topics=topic, group_id=group, instance_id="a"
    )
    return service.start().until_ready()


def test_stop_leaves_at_once(static: Service, admin: Admin, group: str) -> None:
    assert set(seats(admin, group)) == {"a-0"}
    assert static.stop() == 0
    # Not after the session timeout (45 s): the service had its exit code, so it had left.
    assert seats(admin, group) == {}


def test_stop_after_a_restart_request_leaves(static: Service, admin: Admin, group: str) -> None:
    assert static.post("/restart", hold=True)[0] == 202
    static.until(lambda: not static.status().get("workers"), "the drain")
    assert static.stop() == 4
    assert seats(admin, group) == {}


def test_held_restart_with_a_stable_identity_keeps_the_seat(
    make_service: Make, broker: Broker, admin: Admin, topic: str, group: str
) -> None:
    service = make_service(
        bootstrap_servers=broker.bootstrap,
        topics=topic,
        group_id=group,
        instance_id="a",
        stable_identity=True,
        workers=2,
    )
    for how, code, left in [(signal.SIGTERM, 4, {"a-0", "a-1"}), (signal.SIGINT, 0, set())]:
        service.start().until_ready()
        assert service.post("/restart", hold=True)[0] == 202
        service.until(lambda: not service.status().get("workers"), "the drain")
        # Both workers are gone and have kept their seats. If it is a stop now, nobody comes back.
        assert set(seats(admin, group)) == {"a-0", "a-1"}
        assert service.stop(how) == code
        assert set(seats(admin, group)) == left


def test_restart_keeps_the_seat(static: Service, admin: Admin, group: str) -> None:
    assert static.stop(signal.SIGUSR2) == 4
    assert set(seats(admin, group)) == {"a-0"}
    # Stopped before it has connected: nobody comes back to the seat that the restart kept.
    static.start()
    static.until(static.workers, "a worker")
    assert static.stop() == 0
    assert seats(admin, group) == {}


@pytest.mark.parametrize("idle", [True, False])
def test_second_service_with_the_same_identity(
    make_service: Make,
    broker: Broker,
    admin: Admin,
    topic: str,
    group: str,
    tmp_path: Path,
    *,
    idle: bool,
) -> None:
    def member() -> Service:
        return make_service(
            bootstrap_servers=broker.bootstrap,
            topics=topic,
            group_id=group,
            instance_id="a",
            **QUICK_SESSION,
        )

    first, second = member(), member()
    first.start().until_ready()
    if not idle:
        Stream(broker.bootstrap, topic, 12, rate=1).send(120)
        first.until(lambda: lines(tmp_path / "ledger") >= 120, "records")
    seat = seats(admin, group)
    second.start()
    until_reseated(admin, group, seat, ["a-0"])
    seat = seats(admin, group)
    assert_failed(first, 1, "PENSTOCK_INSTANCE_ID", timeout=30)
    assert seats(admin, group) == seat, "the first one gave up the second one's seat"
    second.until_ready()
    before = lines(tmp_path / "ledger")
    Stream(broker.bootstrap, topic, 12, rate=1).send(120)
    second.until(lambda: lines(tmp_path / "ledger") >= before + 120, "records of the second")
    assert second.stop() == 0


def test_partitions_added_after_a_restart_in_place(
    static: Service, broker: Broker, admin: Admin, topic: str, tmp_path: Path
) -> None:
    static.settings["metadata_refresh"] = 1
    assert static.stop(signal.SIGUSR2) == 4
    static.start().until_ready()
    admin.add_partitions(topic, 16)
    Stream(broker.bootstrap, topic, 16, rate=1).send(160)
    ledger = tmp_path / "ledger"
    static.until(lambda: lines(ledger) >= 160, "records of all partitions", 20)
    assert {partition for partition, _, _ in rows(ledger)} == set(range(16))
    assert static.stop() == 0
