"""A batch run works off what was there when it began, and stops with 0."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from devtools.broker import Admin, Broker
from devtools.load import Ledger, Load
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]

LEDGER = "devtools.apps.ledger:app"


def send_in_a_transaction(broker: Broker, topic: str, count: int) -> None:
    """``count`` records into partition 0, and the marker that ends a transaction."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    for sequence in range(count):
        producer.produce(topic, partition=0, value=b"0 %d" % sequence)
    producer.commit_transaction()


def test_it_does_what_was_there_and_stops(
    launch: Launch, load_for: LoadFor, admin: Admin, topic: str, group: str
) -> None:
    first = launch(LEDGER).start().until_ready()
    load = load_for(first, rate=2_000).start()
    load.until_more(100)
    assert first.stop() == 0
    # The stream never stands still: only what is there at the start counts.
    ends = admin.end_offsets(topic)
    batch = launch(LEDGER, stop_when_caught_up=True, heartbeat_interval=1, workers=2).start()
    assert batch.wait(60) == 0, batch.log_tail()
    record = batch.exit_record()
    assert (record["planned"], record["requested_by"]) == (True, "batch")
    committed = admin.committed_offsets(group, topic)
    assert all(committed[number] >= end for number, end in ends.items())
    assert sum(admin.end_offsets(topic).values()) > sum(committed.values())  # some are left
    last = launch(LEDGER).start().until_ready()
    load.service = last
    report = load.report()
    assert report.perfect, str(report)


def test_nothing_to_do_is_done(launch: Launch) -> None:
    service = launch(LEDGER, stop_when_caught_up=True, heartbeat_interval=1).start()
    assert service.wait(60) == 0, service.log_tail()
    assert service.log_lines("caught up: everything that was there at the start is done")


def send_and_delete(broker: Broker, topic: str, count: int) -> None:
    """Partition 1 had ``count`` records, and retention has taken them."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for _ in range(count):
        producer.produce(topic, partition=1, value=b"gone")
    assert producer.flush(30) == 0
    client = AdminClient({"bootstrap.servers": broker.bootstrap})
    (gone,) = client.delete_records([TopicPartition(topic, 1, count)]).values()
    assert gone.result(20).low_watermark == count


def test_what_is_no_record_is_neither_waited_for_nor_left_as_lag(
    launch: Launch, broker: Broker, admin: Admin, topic: str, group: str, ledger: Ledger
) -> None:
    """A transaction's marker, a partition that is empty now, and ten that were never used."""
    send_in_a_transaction(broker, topic, 20)
    send_and_delete(broker, topic, 6)
    service = launch(LEDGER, stop_when_caught_up=True, heartbeat_interval=1).start()
    assert service.wait(60) == 0, service.log_tail()
    assert ledger.count() == 20
    ends = admin.end_offsets(topic)
    assert (ends[0], ends[1], len(ends)) == (21, 6, 12)
    assert admin.committed_offsets(group, topic) == ends


def test_a_topic_that_is_not_there_is_not_nothing_to_do(launch: Launch, topic: str) -> None:
    service = launch(
        LEDGER,
        stop_when_caught_up=True,
        heartbeat_interval=1,
        topics=f"{topic}-typo",
        metadata_refresh=1,
    )
    service.start().until_logged("topic does not exist")
    service.until(lambda: service.status()["ready"], "joined")
    over = service.status()["uptime_seconds"] + 4  # longer than an assignment has to last
    service.until(lambda: service.status()["uptime_seconds"] > over, "some more seconds")
    assert service.running
    assert service.stop() == 0
