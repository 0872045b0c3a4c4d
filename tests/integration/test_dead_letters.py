"""Dead letters on a real broker: confirmed or refused, and never in the worker's way."""

from __future__ import annotations

import itertools
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from devtools.broker import Admin, Broker, have_broker
from penstock import letters
from penstock.errors import NotSent, TooLarge, Unconfirmed
from penstock.kafka.dead_letters import DeadLetters
from penstock.kafka.producer import PRIVATE, Outgoing, Producer
from penstock.letters import Letter, origin
from penstock.record import Record
from penstock.settings import Settings
from penstock.watched import Ended
from tests.conftest import unavailable

pytestmark = pytest.mark.kafka

_numbers = itertools.count(1)


class Outcomes:
    """Who was told what, once each."""

    def __init__(self) -> None:
        self.of: dict[int, Exception | None] = {}
        self.threads: set[str] = set()

    def note(self, number: int) -> Callable[[Exception | None], None]:
        def done(error: Exception | None) -> None:
            assert number not in self.of, "told twice"
            self.threads.add(threading.current_thread().name)
            self.of[number] = error

        return done

    def wait(self, count: int, timeout: float = 20.0) -> list[Exception | None]:
        deadline = time.monotonic() + timeout
        while len(self.of) < count:
            assert time.monotonic() < deadline, f"{len(self.of)} of {count} told"
            time.sleep(0.01)
        return [self.of[number] for number in sorted(self.of)]


def record(number: int = 0, **changes: Any) -> Record:
    plain = Record("orders", 3, number, 1_700_000_000_000, b"k%d" % number, b"v%d" % number, ())
    return plain._replace(**changes)


def letter(topic: str, record: Record, **changes: Any) -> Letter:
    plain = Letter(record, topic, "no stock", "OutOfStock", "Traceback …\n", 3, "billing", 1e9)
    return replace(plain, **changes)


def settings(bootstrap: str, **more: Any) -> Settings:
    return Settings.model_validate({"bootstrap_servers": bootstrap, **more})


def stored(bootstrap: str, topic: str, partitions: int = 1) -> list[Any]:
    """All records of a topic, as an independent client reads them."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "log_level": 0})
    found: list[Any] = []
    try:
        for number in range(partitions):
            at = TopicPartition(topic, number, 0)
            _, end = consumer.get_watermark_offsets(at, timeout=20)
            consumer.assign([at])
            while end and (
                not found or found[-1].partition() != number or found[-1].offset() < end - 1
            ):
                message = consumer.poll(20)
                assert message is not None
                assert message.error() is None
                found.append(message)
    finally:
        consumer.close()
    return found


def _not_told(name: str, error: BaseException | None) -> None:
    raise AssertionError(f"{name} ended") from error


@pytest.fixture
def dead(admin: Admin) -> str:
    """A new dead-letter topic of one partition."""
    name = f"orders.dead-{os.getpid()}-{next(_numbers)}"
    admin.create_topic(name)
    return name


@pytest.fixture
def sender(broker: Broker) -> Iterator[Callable[..., DeadLetters]]:
    made: list[DeadLetters] = []

    def make(
        *topics: str, bootstrap: str = "", ended: Ended = _not_told, **more: Any
    ) -> DeadLetters:
        where = settings(bootstrap or broker.bootstrap, **more)
        made.append(DeadLetters(where, topics, ended))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close(1.0)


Make = Callable[..., DeadLetters]


@pytest.mark.parametrize("path", PRIVATE)
def test_private(broker: Broker, path: str) -> None:
    producer = Producer(settings(broker.bootstrap))
    try:
        operator.attrgetter(path)(producer._client)
    finally:
        producer.close()


# -- what arrives ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value": None},
        {"key": None},
        {"key": None, "value": None},
        {"key": b"", "value": b""},
        {"key": bytes(range(256)), "value": bytes(range(256))},
        {"headers": [("a", b"1"), ("b", None), ("a", b""), ("ü", bytes(range(256)))]},
    ],
)
def test_a_letter_keeps_the_record_as_it_was(
    broker: Broker, dead: str, sender: Make, changes: dict[str, Any]
) -> None:
    told = Outcomes()
    original = record(7, **changes)
    before = time.time() * 1000
    sender(dead).post(letter(dead, original), told.note(0))
    assert told.wait(1) == [None]
    assert told.threads == {"dead-letters"}
    [found] = stored(broker.bootstrap, dead)
    assert (found.key(), found.value()) == (original.key, original.value)
    headers = found.headers()
    assert headers[: len(original.headers)] == list(original.headers)
    assert letters.original(headers) == list(original.headers)
    assert found.timestamp()[1] >= int(before)
    assert origin(headers) == letters.Origin(
        topic="orders",
        partition=3,
        offset=7,
        timestamp=1_700_000_000_000,
        group="billing",
        reason="no stock",
        error="OutOfStock",
        traceback="Traceback …\n",
        attempts=3,
        at=1e9,
    )


def test_five_thousand_letters_arrive_once_each_and_in_order(
    broker: Broker, dead: str, sender: Make
) -> None:
    told = Outcomes()
    letter_box = sender(dead)
    started = time.monotonic()
    for number in range(5_000):
        letter_box.post(letter(dead, record(number)), told.note(number))
    assert time.monotonic() - started < 2  # posting waits for nobody
    assert set(told.wait(5_000)) == {None}
    assert [m.value() for m in stored(broker.bootstrap, dead)] == [b"v%d" % n for n in range(5_000)]


def test_letters_of_a_key_go_where_other_clients_put_them(
    broker: Broker, topic: str, sender: Make
) -> None:
    from kafka import KafkaProducer  # noqa: PLC0415 (the reference for the partition of a key)

    told = Outcomes()
    letter_box = sender(topic)
    keys = [b"", b"a", b"key-1", bytes(range(200)), "schlüssel".encode()]
    for number, key in enumerate(keys):
        letter_box.post(letter(topic, record(number, key=key)), told.note(number))
    assert set(told.wait(len(keys))) == {None}
    reference = KafkaProducer(bootstrap_servers=broker.bootstrap)
    try:
        expected = {key: reference.send(topic, b"x", key=key).get(20).partition for key in keys}
    finally:
        reference.close()
    ours = {
        m.key(): m.partition() for m in stored(broker.bootstrap, topic, 12) if m.value() != b"x"
    }
    assert ours == expected


# -- refusals --------------------------------------------------------------------------


def test_a_missing_topic_is_known_early_told_and_not_made(admin: Admin, sender: Make) -> None:
    missing = f"nowhere-{os.getpid()}-{next(_numbers)}"
    letter_box = sender(missing)
    until(lambda: letter_box.missing() == {missing})
    told = Outcomes()
    letter_box.post(letter(missing, record()), told.note(0))
    [error] = told.wait(1)
    assert isinstance(error, NotSent)
    assert not isinstance(error, Unconfirmed)
    assert str(error) == f"topic {missing} does not exist: create it"
    assert admin.partitions(missing) == 0

    admin.create_topic(missing)
    letter_box.post(letter(missing, record()), told.note(1))
    assert told.wait(2)[1] is None
    until(lambda: letter_box.missing() == frozenset())


def test_no_topic_is_made_where_brokers_make_topics() -> None:
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker(properties={"auto.create.topics.enable": "true"}) as eager:
        letter_box = DeadLetters(settings(eager.bootstrap), ("nowhere",), _not_told)
        letter_box.start()
        told = Outcomes()
        letter_box.post(letter("nowhere", record()), told.note(0))
        [error] = told.wait(1)
        letter_box.close(2.0)
        assert "does not exist" in str(error)
        assert Admin(eager.bootstrap).partitions("nowhere") == 0


def test_a_name_that_no_topic_can_have(sender: Make) -> None:
    told = Outcomes()
    letter_box = sender("a b")
    letter_box.post(letter("a b", record()), told.note(0))
    [error] = told.wait(1)
    assert "not a name that a topic can have" in str(error)
    until(lambda: letter_box.missing() == {"a b"})


def test_one_that_is_refused_does_not_fail_the_others(
    broker: Broker, admin: Admin, dead: str, sender: Make
) -> None:
    """A compacted topic takes no record without a key; the broker refuses the whole batch."""
    compacted = f"{dead}-compacted"
    admin.create_topic(compacted, config={"cleanup.policy": "compact"})
    told = Outcomes()
    letter_box = sender(compacted, dead)
    for number in range(20):
        key = None if number in (3, 11) else b"k%d" % number
        letter_box.post(letter(compacted, record(number, key=key)), told.note(number))
    letter_box.post(letter(dead, record(99)), told.note(99))
    outcomes = told.wait(21)
    refused = [number for number, outcome in told.of.items() if outcome is not None]
    assert sorted(refused) == [3, 11]
    assert f"topic {compacted} refused a record" in str(outcomes[3])
    assert len(stored(broker.bootstrap, compacted)) == 18


def test_a_letter_that_is_too_large_is_told_in_fewer_words(
    broker: Broker, admin: Admin, sender: Make
) -> None:
    small = f"small-{os.getpid()}-{next(_numbers)}"
    admin.create_topic(small, config={"max.message.bytes": "4000"})
    told = Outcomes()
    letter_box = sender(small)
    cases = [(b"x" * 100, "t" * 6_000), (b"x" * 2_900, "t" * 2_000), (b"x" * 5_000, "t")]
    for number, (value, traceback) in enumerate(cases):
        posted = letter(small, record(number, value=value), traceback=traceback, reason="r" * 900)
        letter_box.post(posted, told.note(number))
    for number in range(3, 30):  # a batch that is too large, of letters that are not
        letter_box.post(letter(small, record(number, value=b"y" * 1_500)), told.note(number))
    outcomes = told.wait(30)
    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2], TooLarge)
    assert f"topic {small} takes no record of about 5," in str(outcomes[2])
    assert "max.message.bytes" in str(outcomes[2])
    assert outcomes[3:] == [None] * 27
    found = {m.value(): origin(m.headers()) for m in stored(broker.bootstrap, small)}
    first, second = (found[value] for value, _ in cases[:2])
    assert first is not None
    assert (first.traceback, len(first.reason)) == ("", 900)
    assert second is not None
    assert (second.traceback, len(second.reason)) == ("", letters.SHORT_REASON)


def test_ten_megabytes(broker: Broker, admin: Admin, sender: Make) -> None:
    large = f"large-{os.getpid()}-{next(_numbers)}"
    admin.create_topic(large, config={"max.message.bytes": str(12_000_000)})
    told = Outcomes()
    value = os.urandom(10_000_000)
    sender(large).post(letter(large, record(value=value)), told.note(0))
    assert told.wait(1) == [None]
    assert [m.value() for m in stored(broker.bootstrap, large)] == [value]


USER, PASSWORD = "shop", "right-horse"


def test_credentials_and_rights() -> None:
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker(sasl_users={USER: PASSWORD}) as guarded:
        admin = Admin(guarded.bootstrap)
        for name in ("orders.dead", "readable"):
            admin.create_topic(name)
        admin.grant(USER, "write", "topic", "orders.dead")
        admin.grant(USER, "describe", "topic", "readable")
        sasl = {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": USER,
            "sasl_password": PASSWORD,
        }
        letter_box = DeadLetters(
            settings(guarded.sasl_bootstrap, **sasl),
            ("orders.dead", "readable", "hidden"),
            _not_told,
        )
        letter_box.start()
        told = Outcomes()
        try:
            for number, topic in enumerate(("orders.dead", "readable", "hidden")):
                letter_box.post(letter(topic, record(number)), told.note(number))
            fine, readable, hidden = told.wait(3)
            assert fine is None  # WRITE on the topic is all it takes
            for name, error in (("readable", readable), ("hidden", hidden)):
                assert f"principal User:{USER} may not write to topic {name}" in str(error)
                assert f"WRITE on Topic:{name}" in str(error)
            until(lambda: letter_box.refused() == {"readable", "hidden"})
            assert letter_box.missing() == frozenset()
        finally:
            letter_box.close(2.0)
        wrong = DeadLetters(
            settings(guarded.sasl_bootstrap, **{**sasl, "sasl_password": "wrong"}),
            ("orders.dead",),
            _not_told,
        )
        wrong.start()
        wrong.post(letter("orders.dead", record()), told.note(3))
        error = told.wait(4)[3]
        wrong.close(2.0)
        assert f"refused the credentials of User:{USER}" in str(error)


# -- a broker that is away -------------------------------------------------------------


def test_a_broker_that_is_away_fails_letters_and_one_that_is_back_takes_them(
    own_broker: Broker, sender: Make
) -> None:
    Admin(own_broker.bootstrap).create_topic("orders.dead")
    letter_box = sender("orders.dead", bootstrap=own_broker.bootstrap)
    told = Outcomes()
    letter_box.post(letter("orders.dead", record(0)), told.note(0))
    assert told.wait(1) == [None]

    own_broker.kill()
    started = time.monotonic()
    for number in range(1, 11):
        letter_box.post(letter("orders.dead", record(number)), told.note(number))
    outcomes = told.wait(11, timeout=15)
    assert time.monotonic() - started < 12
    assert all(isinstance(outcome, Unconfirmed) for outcome in outcomes[1:])
    assert "orders.dead" in str(outcomes[1])

    own_broker.restart()
    for number in range(11, 21):
        deadline = time.monotonic() + 30
        while True:  # as the worker does
            tried = Outcomes()
            letter_box.post(letter("orders.dead", record(number)), tried.note(0))
            if tried.wait(1) == [None]:
                break
            assert time.monotonic() < deadline
    # What was given up is not sent later, beside its second try.
    values = [m.value() for m in stored(own_broker.bootstrap, "orders.dead")]
    assert values == [b"v0", *(b"v%d" % number for number in range(11, 21))]


def test_a_broker_that_hangs_is_given_up_and_a_close_does_not_wait_for_it(
    own_broker: Broker, sender: Make
) -> None:
    Admin(own_broker.bootstrap).create_topic("orders.dead")
    letter_box = sender("orders.dead", bootstrap=own_broker.bootstrap)
    told = Outcomes()
    letter_box.post(letter("orders.dead", record(0)), told.note(0))
    assert told.wait(1) == [None]
    own_broker.pause()
    try:
        letter_box.post(letter("orders.dead", record(1)), told.note(1))
        time.sleep(0.3)  # on its way
        letter_box.post(letter("orders.dead", record(2)), told.note(2))
        started = time.monotonic()
        letter_box.close(1.0)
        assert time.monotonic() - started < 2
        assert all(isinstance(outcome, Unconfirmed) for outcome in told.wait(3)[1:])
        assert not [t for t in threading.enumerate() if t.name == "dead-letters"]
    finally:
        own_broker.resume()


def test_a_close_while_no_broker_was_ever_found(sender: Make) -> None:
    letter_box = sender("orders.dead", bootstrap="127.0.0.1:1")
    told = Outcomes()
    letter_box.post(letter("orders.dead", record(0)), told.note(0))
    time.sleep(0.3)  # connecting
    started = time.monotonic()
    letter_box.close(0.5)
    assert time.monotonic() - started < 1.5
    assert isinstance(told.wait(1)[0], Unconfirmed)


def test_a_close_sends_what_is_posted(broker: Broker, dead: str, sender: Make) -> None:
    told = Outcomes()
    letter_box = sender(dead)
    for number in range(3_000):
        letter_box.post(letter(dead, record(number)), told.note(number))
    letter_box.close(15.0)
    assert list(told.of.values()) == [None] * 3_000
    assert len(stored(broker.bootstrap, dead)) == 3_000
    letter_box.post(letter(dead, record(0)), told.note(-1))
    assert isinstance(told.of[-1], Unconfirmed)
    assert "the worker ends" in str(told.of[-1])


def test_a_caller_that_raises_is_told_of_and_harms_nobody_else(dead: str, sender: Make) -> None:
    def raises(_: Exception | None) -> None:
        raise RuntimeError("the caller's own fault")

    told, faults = Outcomes(), list[BaseException | None]()
    letter_box = sender(dead, ended=lambda _, error: faults.append(error))
    letter_box.post(letter(dead, record(0)), raises)
    letter_box.post(letter(dead, record(1)), told.note(1))
    assert told.wait(1) == [None]
    letter_box.post(letter(dead, record(2)), told.note(2))
    assert told.wait(2) == [None, None]
    assert [str(error) for error in faults] == ["the caller's own fault"]


def test_producing_many_topics_at_once_tells_of_each(broker: Broker, admin: Admin) -> None:
    names = [f"many-{os.getpid()}-{next(_numbers)}" for _ in range(3)]
    for name in names[:2]:
        admin.create_topic(name, 2)
    producer = Producer(settings(broker.bootstrap))
    try:
        producer.connect(10.0)
        records = [Outgoing(name, b"%d" % n, b"v", []) for n in range(10) for name in names]
        outcomes = producer.send(records, 10.0)
    finally:
        producer.close()
    told = {name: outcomes[at::3] for at, name in enumerate(names)}
    assert told[names[0]] == told[names[1]] == [None] * 10
    assert {str(outcome) for outcome in told[names[2]]} == {
        f"topic {names[2]} does not exist: create it"
    }


def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
