"""Records that cannot be read, and records that the client would forget."""

from __future__ import annotations

from pathlib import Path

from devtools.broker import Admin, Broker
from devtools.stream import Stream
from tests.scenarios.support import Make, assert_failed, lines


def flip_last_byte(broker: Broker, topic: str, partition: int) -> None:
    """Damage the newest batch of a partition on the (stopped) broker's disk."""
    folder = broker.log_path.parent / "data" / f"{topic}-{partition}"
    (segment,) = folder.glob("*.log")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 0xFF
    segment.write_bytes(data)


def test_corrupt_batch(make_service: Make, own_broker: Broker, group: str, tmp_path: Path) -> None:
    admin = Admin(own_broker.bootstrap)
    admin.create_topic("orders", 3)
    Stream(own_broker.bootstrap, "orders", 3, rate=1).send(300)
    own_broker.stop()
    flip_last_byte(own_broker, "orders", 1)
    own_broker.start()
    service = make_service(
        bootstrap_servers=own_broker.bootstrap,
        topics="orders",
        group_id=group,
        env={"LEDGER": str(tmp_path / "ledger"), "LEDGER_SLEEP": "0.001"},
    )
    service.start()
    assert_failed(service, 1, "orders[1]", "corrupt", timeout=40)
    # What was finished of the other partitions is committed, whatever it was.
    assert sum(admin.committed_offsets(group, "orders").values()) == lines(tmp_path / "ledger")


def test_parked_records_come_back(
    make_service: Make, broker: Broker, topic: str, group: str, tmp_path: Path
) -> None:
    """Trap 14: what was fetched for a partition that was then paused."""
    service = make_service(
        bootstrap_servers=broker.bootstrap,
        topics=topic,
        group_id=group,
        max_poll_records=20,
        buffer_records=40,
        concurrency=4,
        env={"LEDGER": str(tmp_path / "ledger"), "LEDGER_SLEEP": "0.002"},
    )
    Stream(broker.bootstrap, topic, 12, rate=1).send(4_000)
    service.start().until_ready()
    service.until(lambda: lines(tmp_path / "ledger") >= 4_000, "all records")
    assert service.stop() == 0
    assert lines(tmp_path / "ledger") == 4_000
