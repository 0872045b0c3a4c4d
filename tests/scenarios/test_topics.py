"""Topics that are missing, come, go, come back and grow: none of it ends the service."""

from __future__ import annotations

from pathlib import Path

from devtools.broker import Admin, Broker
from devtools.stream import Stream
from tests.scenarios.support import Make, lines, rows

MISSING = "topic does not exist; waiting for it"


def test_missing_topic_that_appears(
    make_service: Make, broker: Broker, admin: Admin, group: str, tmp_path: Path
) -> None:
    name = f"late-{group}"
    service = make_service(
        bootstrap_servers=broker.bootstrap, topics=name, group_id=group, metadata_refresh=1
    )
    service.start().until_ready()
    service.until_logged(MISSING)
    assert service.get("/livez")[0] == 200
    assert name in str(service.status())
    admin.create_topic(name, 3)
    Stream(broker.bootstrap, name, 3, rate=1).send(90)
    service.until(lambda: lines(tmp_path / "ledger") >= 90, "all records")
    service.until_logged("topic appeared")
    assert service.stop() == 0


def test_one_of_two_topics_is_missing(
    make_service: Make, broker: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    name = f"late-{group}"
    service = make_service(
        bootstrap_servers=broker.bootstrap,
        topics=f"{topic},{name}",
        group_id=group,
        metadata_refresh=1,
    )
    service.start().until_ready()
    service.until_logged(MISSING)
    Stream(broker.bootstrap, topic, 12, rate=1).send(120)
    service.until(lambda: lines(tmp_path / "ledger") >= 120, "records of the other")
    admin.create_topic(name, 3)
    Stream(broker.bootstrap, name, 3, rate=1).send(90)
    service.until(lambda: lines(tmp_path / "ledger") >= 210, "all records")
    assert service.stop() == 0


def test_topic_deleted_and_made_again(
    make_service: Make, broker: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    service = make_service(
        bootstrap_servers=broker.bootstrap, topics=topic, group_id=group, metadata_refresh=1
    )
    service.start().until_ready()
    Stream(broker.bootstrap, topic, 12, rate=1).send(600)
    ledger = tmp_path / "ledger"
    service.until(lambda: lines(ledger) >= 600, "the old topic's records")
    service.until(
        lambda: sum(admin.committed_offsets(group, topic).values()) == 600, "their commit"
    )
    admin.delete_topic(topic)
    service.until_logged(MISSING)
    assert service.get("/livez")[0] == 200
    admin.create_topic(topic, 12)
    # More than the old topic had: an old position would skip the beginning.
    Stream(broker.bootstrap, topic, 12, rate=1).send(1_200)
    service.until(lambda: lines(ledger) >= 1_800, "all of the new topic's records")
    # Whether the group gave the partitions up meanwhile or not: from the start, nothing twice.
    assert service.stop() == 0
    assert sorted(offset for partition, offset, _ in rows(ledger)[600:] if partition == 0) == list(
        range(100)
    )


def test_topic_made_again_between_two_looks(
    make_service: Make, broker: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    service = make_service(
        bootstrap_servers=broker.bootstrap, topics=topic, group_id=group, metadata_refresh=5
    )
    service.start().until_ready()
    Stream(broker.bootstrap, topic, 12, rate=1).send(600)
    ledger = tmp_path / "ledger"
    service.until(lambda: lines(ledger) >= 600, "the old topic's records")
    admin.delete_topic(topic)
    admin.create_topic(topic, 12)
    Stream(broker.bootstrap, topic, 12, rate=1).send(1_200)
    service.until(lambda: lines(ledger) >= 1_800, "all of the new topic's records")
    assert service.stop() == 0


def test_partitions_added_while_running(
    make_service: Make, broker: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    service = make_service(
        bootstrap_servers=broker.bootstrap, topics=topic, group_id=group, metadata_refresh=1
    )
    service.start().until_ready()
    admin.add_partitions(topic, 16)
    Stream(broker.bootstrap, topic, 16, rate=1).send(320)
    service.until(lambda: lines(tmp_path / "ledger") >= 320, "records of all partitions")
    assert {partition for partition, _, _ in rows(tmp_path / "ledger")} == set(range(16))
    assert service.stop() == 0
