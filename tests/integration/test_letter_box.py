"""Marks on a real broker: what is dealt with stays so, and nothing else does."""

from __future__ import annotations

import itertools
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from devtools.broker import Admin, Broker
from devtools.commits import Commits
from penstock import map_seal, offset_map
from penstock.errors import KafkaFailure, NotSent
from penstock.kafka.letter_box import BATCH, PRIVATE, LetterBox
from penstock.kafka.producer import Outgoing, Producer
from penstock.letter_filter import Stored
from penstock.letters import Letter, headers
from penstock.record import Record
from penstock.settings import Settings

pytestmark = pytest.mark.kafka

_numbers = itertools.count(1)


class Dead:
    """A dead-letter topic of one partition, and a group for its marks."""

    def __init__(self, bootstrap: str) -> None:
        number = next(_numbers)
        self.topic = f"dead-{os.getpid()}-{number}"
        self.group = f"marks-{os.getpid()}-{number}"
        self.bootstrap = bootstrap
        self.settings = Settings.model_validate({"bootstrap_servers": bootstrap})
        Admin(bootstrap).create_topic(self.topic)

    def fill(self, count: int, size: int = 10) -> None:
        records = []
        for n in range(count):
            record = Record("orders", 0, n, 0, b"k%d" % n, b"v" * size, [])
            letter = Letter(record, self.topic, "no stock", "Error", "", 1, "billing", 1e9)
            records.append(Outgoing(self.topic, record.key, record.value, headers(letter)))
        with closing(Producer(self.settings)) as producer:
            producer.connect(10.0)
            assert set(producer.send(records, 60.0)) == {None}

    @contextmanager
    def box(self) -> Iterator[LetterBox]:
        with closing(LetterBox(self.settings, self.topic, self.group)) as box:
            yield box

    def open(self) -> list[int]:
        with self.box() as box:
            return [stored.record.offset for stored in box.letters(0)]

    def mark(self, chosen: set[int]) -> None:
        with self.box() as box:
            told: list[int] = []
            box.settle(0, chosen, None, told.append, lambda: False)
            assert sum(told) == len(chosen)

    def marked(self) -> set[int]:
        """As they are in the cluster."""
        with Commits(self.bootstrap) as commits:
            position, text = commits.of(self.group, self.topic)[0]
        return {*range(position), *map_seal.told(position, text).finished}

    def commit(self, offset: int, text: str) -> None:
        """As somebody else would."""
        client = AdminClient({"bootstrap.servers": self.bootstrap})
        at = TopicPartition(self.topic, 0, offset, text)
        wanted = ConsumerGroupTopicPartitions(self.group, [at])
        (done,) = client.alter_consumer_group_offsets([wanted]).values()
        done.result(20)


@pytest.fixture
def dead(broker: Broker) -> Dead:
    return Dead(broker.bootstrap)


@pytest.mark.parametrize("path", PRIVATE)
def test_private(dead: Dead, path: str) -> None:
    with dead.box() as box:
        operator.attrgetter(path)(box._consumer)


def test_marks_are_kept_in_any_order_and_move_on_when_they_can(dead: Dead) -> None:
    dead.fill(10)
    dead.mark({7, 3})
    assert dead.open() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert dead.marked() == {3, 7}
    dead.mark({0, 1, 2})
    assert dead.open() == [4, 5, 6, 8, 9]
    assert dead.marked() == {0, 1, 2, 3, 7}
    dead.mark({4, 5, 6, 8, 9})
    assert dead.open() == []
    assert dead.marked() == set(range(10))
    dead.fill(2)
    assert dead.open() == [10, 11]
    with dead.box() as box:
        states = [(s.record.offset, s.settled) for s in box.letters(0, settled=True)]
        assert states == [(n, n < 10) for n in range(12)]
        assert (box.count(), box.count(settled=True)) == (2, 12)


def test_what_retention_has_taken_is_neither_open_nor_in_the_way(dead: Dead) -> None:
    dead.fill(20)
    dead.mark({2, 12})
    client = AdminClient({"bootstrap.servers": dead.bootstrap})
    for done in client.delete_records([TopicPartition(dead.topic, 0, 10)]).values():
        done.result(20)
    assert dead.open() == [10, 11, *range(13, 20)]
    dead.mark({10, 11})
    assert dead.marked() == set(range(13))
    assert dead.open() == list(range(13, 20))


def test_a_topic_that_was_made_again_has_no_marks(dead: Dead) -> None:
    dead.fill(5)
    dead.mark(set(range(5)))
    admin = Admin(dead.bootstrap)
    admin.delete_topic(dead.topic)
    admin.create_topic(dead.topic)
    dead.commit(5, "")  # a broker may forget it with the topic, or not
    dead.fill(3)
    assert dead.open() == [0, 1, 2]


def test_only_what_was_confirmed_is_marked(dead: Dead) -> None:
    dead.fill(6)

    def send(letters: Sequence[Stored]) -> list[NotSent | None]:
        refused = {1, 4}
        return [NotSent("no") if s.record.offset in refused else None for s in letters]

    told: list[int] = []
    with dead.box() as box, pytest.raises(KafkaFailure, match="letter at 0:1 was not replayed: no"):
        box.settle(0, set(range(6)), send, told.append, lambda: False)
    assert told == [4]
    assert dead.open() == [1, 4]


def test_batches_are_bounded_and_a_halt_is_between_them(dead: Dead) -> None:
    dead.fill(3 * BATCH)
    sizes: list[int] = []

    def send(letters: Sequence[Stored]) -> list[NotSent | None]:
        sizes.append(len(letters))
        return [None] * len(letters)

    with dead.box() as box:
        halts = iter([False, False, True])
        box.settle(0, set(range(3 * BATCH)), send, lambda _: None, lambda: next(halts))
    assert sizes == [BATCH, BATCH]
    assert dead.open() == list(range(2 * BATCH, 3 * BATCH))


def test_large_letters_go_in_small_batches(dead: Dead) -> None:
    dead.fill(40, 900_000)
    sizes: list[int] = []

    def send(letters: Sequence[Stored]) -> list[NotSent | None]:
        sizes.append(len(letters))
        return [None] * len(letters)

    with dead.box() as box:
        box.settle(0, set(range(40)), send, lambda _: None, lambda: False)
    assert sizes == [18, 18, 4]


def test_marks_without_room_say_what_comes_first(dead: Dead) -> None:
    count = offset_map.SPAN + 4_000
    dead.fill(count)
    every_other = set(range(1, count, 2))
    told: list[int] = []
    with dead.box() as box, pytest.raises(KafkaFailure, match="have no room") as caught:
        box.settle(0, every_other, None, told.append, lambda: False)
    assert sum(told) == offset_map.SPAN // 2
    left = dead.open()
    assert len(left) == count - sum(told)
    first, last = 0, offset_map.SPAN
    assert f"--at 0:{first}-{last}" in str(caught.value)
    dead.mark({offset for offset in left if first <= offset <= last})
    dead.mark(every_other - set(range(offset_map.SPAN)))  # now there is
    assert dead.open() == [n for n in left if n > last and n not in every_other]


def test_damaged_marks_are_told_and_cost_only_what_they_said(dead: Dead) -> None:
    dead.fill(6)
    dead.commit(2, "penstock1:damaged")
    with dead.box() as box:
        (warning,) = box.warnings
        assert "letters from 0:2 on count as open" in warning
        assert [s.record.offset for s in box.letters(0)] == [2, 3, 4, 5]


def test_two_at_once_do_not_undo_each_others_marks(dead: Dead) -> None:
    dead.fill(6)
    sent: list[int] = []

    def send(letters: Sequence[Stored]) -> list[NotSent | None]:
        sent.extend(s.record.offset for s in letters)
        return [None] * len(letters)

    dead.mark({5})
    with dead.box() as slow:
        dead.mark({0, 1})
        with pytest.raises(KafkaFailure, match="somebody else is marking"):
            slow.settle(0, {4}, send, lambda _: None, lambda: False)
        slow.renew()
    assert sent == []
    assert dead.open() == [2, 3, 4]


def test_nothing_is_sent_where_a_running_consumer_has_the_group(dead: Dead) -> None:
    dead.fill(3)
    consumer = Consumer({"bootstrap.servers": dead.bootstrap, "group.id": dead.group})
    consumer.subscribe([dead.topic])
    try:
        while not consumer.assignment():
            consumer.poll(0.1)
        sent: list[int] = []

        def send(letters: Sequence[Stored]) -> list[NotSent | None]:
            sent.append(len(letters))
            return [None] * len(letters)

        with dead.box() as box, pytest.raises(KafkaFailure, match="choose another --group"):
            box.settle(0, {0}, send, lambda _: None, lambda: False)
        assert sent == []
    finally:
        consumer.close()


def test_a_record_goes_to_the_partition_that_is_asked_for_if_it_is_there(dead: Dead) -> None:
    topic = f"{dead.topic}-three"
    Admin(dead.bootstrap).create_topic(topic, 3)
    with closing(Producer(dead.settings)) as producer:
        producer.connect(10.0)
        wanted = [0, 1, 2, 2, 2, 7, 7]
        records = [Outgoing(topic, b"one key", b"", (), number) for number in wanted]
        assert set(producer.send(records, 20.0)) == {None}
        [by_key] = producer.send([Outgoing(topic, b"one key", b"", ())], 20.0)
        assert by_key is None
    ends = Admin(dead.bootstrap).end_offsets(topic)
    asked = {0: 1, 1: 1, 2: 3}
    others = {n: ends[n] - asked[n] for n in ends}
    assert sorted(others.values()) == [0, 0, 3]  # those for partition 7 go by their key


def test_a_broker_that_restarts_between_sending_and_marking_repeats_nothing(
    own_broker: Broker,
) -> None:
    dead = Dead(own_broker.bootstrap)
    dead.fill(3)
    back = threading.Thread(target=own_broker.restart)

    def send(letters: Sequence[Stored]) -> list[NotSent | None]:
        own_broker.kill()
        back.start()
        return [None] * len(letters)

    with dead.box() as box:
        box.settle(0, {0, 2}, send, lambda _: None, lambda: False)
        box.renew()
    back.join()
    assert dead.open() == [1]
