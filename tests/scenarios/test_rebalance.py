"""Members that come and go: nothing lost, nothing repeated, order kept."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from devtools.broker import Admin, Broker
from devtools.service import Service
from devtools.stream import Stream
from tests.scenarios.support import Make, finish, handled, lines, rows, until, until_handled


def owns_some(service: Service) -> bool:
    """Whether it has partitions."""
    workers = service.status().get("workers", [])
    return bool(workers) and all(worker["assignment"] for worker in workers)


@pytest.mark.parametrize(
    ("work", "rate", "more"),
    [
        pytest.param("0", 1_000, 500, id="quick"),
        # Almost always a record is in flight on a partition that moves.
        pytest.param("0.3", 10, 10, id="slow"),
    ],
)
def test_members_come_and_go_under_load(
    make_service: Make,
    broker: Broker,
    topic: str,
    group: str,
    tmp_path: Path,
    *,
    work: str,
    rate: int,
    more: int,
) -> None:
    def member() -> Service:
        return make_service(
            bootstrap_servers=broker.bootstrap,
            topics=topic,
            group_id=group,
            concurrency=6,
            env={"LEDGER_SLEEP": work, "LEDGER": str(tmp_path / "ledger")},
        )

    stays, guest = member(), member()
    stays.start().until_ready()
    stream = Stream(broker.bootstrap, topic, 12, rate=rate).start()
    until_handled(stays, tmp_path / "ledger", more)
    for number, code in [(signal.SIGTERM, 0), (signal.SIGUSR2, 4)] * 2:
        guest.start().until_ready()
        guest.until(lambda: owns_some(guest), "partitions for the guest")
        until_handled(guest, tmp_path / "ledger", more)
        assert guest.stop(number) == code
        until_handled(stays, tmp_path / "ledger", more)
    report = finish(stream, [stays], tmp_path)
    assert report.perfect, str(report)


@pytest.mark.parametrize("round_", range(2))
def test_ten_joins_all_get_to_work(
    make_service: Make, broker: Broker, admin: Admin, group: str, tmp_path: Path, round_: int
) -> None:
    """Trap 2: the leader's metadata arrives after its join, and it must not forget it."""
    name = f"late-{group}-{round_}"
    service = make_service(
        bootstrap_servers=broker.bootstrap,
        topics=name,
        group_id=group,
        workers=5,
        metadata_refresh=1,
    )
    service.start().until_listening()
    admin.create_topic(name, 10)  # while they join
    Stream(broker.bootstrap, name, 10, rate=1).send(100)
    service.until_ready()
    service.until(lambda: owns_some(service), "partitions for every worker")
    service.until(lambda: lines(tmp_path / "ledger") >= 100, "all records")
    assert service.stop() == 0


def test_leader_whose_rejoin_takes_longer_than_a_poll(
    make_service: Make, broker: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    """Trap 2 again: the leader sees new partitions, and waits for the other's next heartbeat."""
    members = [
        make_service(
            bootstrap_servers=broker.bootstrap,
            topics=topic,
            group_id=group,
            metadata_refresh=1,
            session_timeout=60,  # a leader that forgets its rejoin is not given up meanwhile
            heartbeat_interval=5,  # of the follower: that long the leader's join is under way
        )
        for _ in range(2)
    ]
    for member in members:
        member.start().until_ready()
    members[0].until(lambda: all(map(owns_some, members)), "partitions for both")
    ledger, expected = tmp_path / "ledger", 0
    for total in (14, 16, 18):
        admin.add_partitions(topic, total)
        Stream(broker.bootstrap, topic, total, rate=1).send(total * 10)
        expected += total * 10
        until(partial(handled, ledger, expected), f"records of {total} partitions", 40)
    assert [member.stop() for member in members] == [0, 0]
    assert lines(ledger) == expected


def test_handler_still_running_when_the_partition_must_go(
    make_service: Make, broker: Broker, topic: str, group: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"

    def member(work: str) -> Service:
        return make_service(
            bootstrap_servers=broker.bootstrap,
            topics=topic,
            group_id=group,
            concurrency=12,
            revoke_timeout=1,
            env={"LEDGER_SLEEP": work, "LEDGER": str(ledger)},
        )

    slow, quick = member("12"), member("0")
    slow.start().until_ready()
    Stream(broker.bootstrap, topic, 12, rate=1).send(12 * 5)
    slow.until(lambda: slow.metrics().get("penstock_in_flight_records") == 12, "records in flight")
    quick.start().until_ready()
    slow.until_logged("a partition was given up with a record in flight")
    quick.until(lambda: lines(ledger) >= 6 * 5, "the records of the partitions that moved")
    assert slow.get("/livez")[0] == quick.get("/livez")[0] == 200
    moved = {partition for partition, _, pid in rows(ledger) if pid in quick.workers()}
    first = {
        partition for partition, offset, pid in rows(ledger) if pid in quick.workers() if not offset
    }
    assert first == moved, "a record that was in flight was not delivered again"
    assert slow.stop() == 0
    quick.until(
        lambda: (
            {(p, o) for p, o, _ in rows(ledger)} == {(p, o) for p in range(12) for o in range(5)}
        ),
        "every record",
    )
    assert quick.stop() == 0
