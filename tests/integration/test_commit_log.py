"""A commit is for one log: what is noted beside it is believed there, and nowhere else.

With real leader changes (each restart of a broker raises the epochs), a log that is really cut
off and grows again, and topics that are really made anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as k
from kafka.structs import OffsetAndMetadata
from structlog.testing import capture_logs

from devtools.broker import Admin, Broker
from penstock import offset_map
from penstock.map_seal import Sealed, unseal
from penstock.offsets import Position
from penstock.record import Partition
from tests.integration.member import Member, until

FINISHED = {5, 7, 9}
MAP = offset_map.encode(4, FINISHED)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Broker]:
    """A broker that is restarted, and whose logs are cut."""
    with Broker() as running:
        yield running


@pytest.fixture
def orders(cluster: Broker, group: str) -> str:
    """A topic of 2 partitions with 10 records each, each a batch of its own."""
    name = f"orders-{group}"
    Admin(cluster.bootstrap).create_topic(name, 2)
    write(cluster, name, 10)
    return name


def write(cluster: Broker, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for n in range(count):
        for partition in range(2):
            producer.produce(topic, b"%d" % n, partition=partition)
        assert producer.flush(30) == 0


def committed(cluster: Broker, group: str, topic: str, number: int = 0) -> OffsetAndMetadata:
    client = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        return client.list_group_offsets([group])[group][TopicPartition(topic, number)]
    finally:
        client.close()


def rewrite(cluster: Broker, group: str, topic: str, at: OffsetAndMetadata) -> None:
    """Write partition 0's commit as it is, as MirrorMaker's group sync and scripts do."""
    client = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        (answer,) = client.alter_group_offsets(group, {TopicPartition(topic, 0): at}).values()
        assert answer is k.NoError
    finally:
        client.close()


def sealed(at: OffsetAndMetadata) -> Sealed:
    found = unseal(at.metadata)
    assert found is not None
    return found


def read_and_commit(cluster: Broker, group: str, topic: str) -> OffsetAndMetadata:
    """A member reads all, and is finished with what is before 4 and with some beyond."""
    with Member(cluster.bootstrap, group, topic) as member:
        until(lambda: len(member.records) == 20, member)
        positions = {Partition(topic, 0): Position(4, MAP), Partition(topic, 1): Position(8)}
        member.engine.commit(positions, 5.0)
    return committed(cluster, group, topic)


class NextOwner(NamedTuple):
    """What whoever came next was told, warned of, and read."""

    owned: dict[Partition, Position | None]
    complaints: list[str]
    read: list[list[int]]
    #: The epoch before the last record of partition 1, and that of it.
    epochs: tuple[int, int]


def next_owner(cluster: Broker, group: str, topic: str, total: int) -> NextOwner:
    """Reads on until it has come to the logs' ends."""
    with capture_logs() as logs, Member(cluster.bootstrap, group, topic) as member:
        ends = {Partition(topic, 0): total, Partition(topic, 1): total}
        until(lambda: dict(member.engine.positions()) == ends, member)
        owned = dict(member.notebook.owned)
        epochs = member.engine._restore.logs[Partition(topic, 1)].epochs
    again = "records that were finished will be handled again"
    return NextOwner(
        owned,
        [str(line["reason"]) for line in logs if line["event"] == again],
        [member.offsets(topic, number) for number in range(2)],
        (epochs.before(10), epochs.before(total)),
    )


def test_it_is_believed_in_its_own_log_whatever_the_leader(
    cluster: Broker, orders: str, group: str
) -> None:
    at = read_and_commit(cluster, group, orders)
    made_for, text = sealed(at)
    assert (made_for.offset, text) == (4, MAP)
    assert len(made_for.topic) == 22
    assert (at.leader_epoch, made_for.epoch) == (0, 0)
    cluster.restart()
    cluster.kill()
    cluster.restart()
    write(cluster, orders, 5)
    found = next_owner(cluster, group, orders, 15)
    assert found.complaints == []
    assert found.owned == {
        Partition(orders, 0): Position(4, MAP),
        Partition(orders, 1): Position(8),
    }
    before, later = found.epochs
    assert 0 == before < later
    # And what is committed next is of the epoch of the record before it.
    with Member(cluster.bootstrap, group, orders) as third:
        until(lambda: len(third.records) == 11 + 7, third)
        third.engine.commit({Partition(orders, 1): Position(12)}, 5.0)
        third.engine.commit({Partition(orders, 0): Position(6, offset_map.encode(6, {7}))}, 5.0)
    assert committed(cluster, group, orders, 1).leader_epoch == later
    assert committed(cluster, group, orders).leader_epoch == 0
    assert sealed(committed(cluster, group, orders)).seal.epoch == later


def test_a_log_that_was_cut_off_and_grew_again_is_another(
    cluster: Broker, orders: str, group: str
) -> None:
    read_and_commit(cluster, group, orders)
    cluster.kill()
    for number in range(2):
        cut(Path(cluster._directory or "") / "data" / f"{orders}-{number}", before=6)
    cluster.start()
    write(cluster, orders, 10)
    found = next_owner(cluster, group, orders, 16)
    assert len(found.complaints) == 1
    assert (
        "the log was cut off: leader epoch 0 ends at 6, and the map reaches to 9"
        in found.complaints[0]
    )
    assert found.owned[Partition(orders, 0)] == Position(4)
    assert found.read[0] == [*range(4, 16)]
    # Nor is the offset 8 what it was: two that were never read stand before it now.
    assert found.read[1] == [*range(6, 16)]


def cut(directory: Path, *, before: int) -> None:
    """Cut a partition's log, so that the batch with the offset ``before`` is its end."""
    (segment,) = directory.glob("*.log")
    raw = segment.read_bytes()
    at = 0
    while at < len(raw):
        offset, size = struct.unpack_from(">qi", raw, at)
        if offset == before:
            segment.write_bytes(raw[:at])
            return
        at += 12 + size
    raise AssertionError(f"no batch begins at {before}")


def test_a_topic_made_anew_is_another_log(cluster: Broker, orders: str, group: str) -> None:
    at = read_and_commit(cluster, group, orders)
    admin = Admin(cluster.bootstrap)
    admin.delete_topic(orders)
    admin.create_topic(orders, 2)
    write(cluster, orders, 10)
    rewrite(cluster, group, orders, at)
    found = next_owner(cluster, group, orders, 10)
    assert len(found.complaints) == 1
    assert f"made for the topic of id {sealed(at).seal.topic}" in found.complaints[0]
    assert found.read[0] == [*range(4, 10)]


@pytest.mark.parametrize("epoch", [0, -1])
def test_an_offset_that_is_moved_leaves_its_map_behind(
    cluster: Broker, orders: str, group: str, epoch: int
) -> None:
    at = read_and_commit(cluster, group, orders)
    rewrite(cluster, group, orders, OffsetAndMetadata(2, at.metadata, epoch))
    found = next_owner(cluster, group, orders, 10)
    assert len(found.complaints) == 1
    assert "made for offset 4, and the group's is 2" in found.complaints[0]
    assert found.owned[Partition(orders, 0)] == Position(2)
    # Beside its own offset it is believed, also if whoever wrote that knew of no epochs.
    rewrite(cluster, group, orders, OffsetAndMetadata(4, at.metadata, -1))
    found = next_owner(cluster, group, orders, 10)
    assert found.complaints == []
    assert found.owned[Partition(orders, 0)] == Position(4, MAP)


def test_the_first_form_is_not_believed(cluster: Broker, orders: str, group: str) -> None:
    """It said neither which offset it was for, nor which log."""
    read_and_commit(cluster, group, orders)
    rewrite(cluster, group, orders, OffsetAndMetadata(4, f"penstock1:{MAP}", -1))
    found = next_owner(cluster, group, orders, 10)
    assert len(found.complaints) == 1
    assert "of a form that does not say which offset" in found.complaints[0]
    assert found.owned[Partition(orders, 0)] == Position(4)


def test_an_epoch_that_the_log_never_had_moves_nobody(
    cluster: Broker, orders: str, group: str
) -> None:
    """A commit from elsewhere; to the client it would mean "begin anew", here: at the end."""
    read_and_commit(cluster, group, orders)
    rewrite(cluster, group, orders, OffsetAndMetadata(3, "", 1_000))
    with Member(cluster.bootstrap, group, orders, auto_offset_reset="latest") as member:
        until(lambda: len(member.records) == 7 + 2, member)
    assert member.offsets(orders, 0) == [*range(3, 10)]


# -- where nothing is committed --------------------------------------------------------


@pytest.mark.parametrize(("reset", "begin"), [("latest", 10), ("earliest", 0)])
def test_where_to_begin_is_committed_before_the_first_record_comes(
    cluster: Broker, orders: str, group: str, reset: str, begin: int
) -> None:
    member = Member(cluster.bootstrap, group, orders, auto_offset_reset=reset)
    try:
        until(lambda: member.owns(0, 1, topic=orders), member)
        assert set(member.notebook.owned.values()) == {Position(begin)}
        assert committed(cluster, group, orders).offset == begin  # whatever ends it now
        assert committed(cluster, group, orders, 1).offset == begin
    finally:
        member.close()
    write(cluster, orders, 3)
    found = next_owner(cluster, group, orders, 13)
    assert found.read[0] == [*range(begin, 13)]


def test_a_log_whose_beginning_is_gone_begins_where_it_does(
    cluster: Broker, orders: str, group: str
) -> None:
    client = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    client.delete_records({TopicPartition(orders, 0): 10, TopicPartition(orders, 1): 4})
    client.close()
    with Member(cluster.bootstrap, group, orders) as member:
        until(lambda: member.owns(0, 1, topic=orders), member)
        assert member.notebook.owned == {
            Partition(orders, 0): Position(10),
            Partition(orders, 1): Position(4),
        }
    assert committed(cluster, group, orders).offset == 10
