"""What the client fetches and puts aside keeps its bound, and everything still gets through."""

from __future__ import annotations

import confluent_kafka

from devtools.broker import Admin, Broker
from penstock.record import Partition
from tests.integration.member import Member, until

PARTITIONS = 40
RECORD = 100_000
FETCH = 1_000_000
#: Larger than all that may be fetched at once: it comes all the same.
GIANT = 1_500_000


def held(member: Member) -> int:
    """Bytes of record batches that the client has and has not handed over."""
    fetcher = member.engine._consumer._fetcher
    raw = [*fetcher._completed_fetches, *fetcher._paused_completed_fetches.values()]
    return sum(len(fetch.partition_data.records or b"") for fetch in raw)


def test_what_is_put_aside_does_not_grow_with_the_partitions(
    broker: Broker, admin: Admin, topic: str, group: str
) -> None:
    """With the client's own 1 MB a partition, some 15 MB lie there."""
    name = f"{topic}-large"
    admin.create_topic(name, PARTITIONS, config={"max.message.bytes": str(2 * GIANT)})
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": broker.bootstrap, "message.max.bytes": 2 * GIANT, "linger.ms": 50}
    )
    with Member(broker.bootstrap, group, name, fetch_bytes=FETCH) as member:
        until(lambda: member.owns(*range(PARTITIONS), topic=name), member)
        for n in range(4 * PARTITIONS):
            producer.produce(name, value=bytes([n % 251]) * RECORD, partition=n % PARTITIONS)
        assert producer.flush(30) == 0
        everything = [Partition(name, n) for n in range(PARTITIONS)]
        most = 0
        for _ in range(10):
            before = len(member.records)
            while len(member.records) == before:
                member.poll(0.05, limit=1)
            # What is there, and what is under way, is for partitions that are paused now.
            member.engine.pause(everything)
            for _ in range(5):
                member.poll(0.05, limit=1)
                most = max(most, held(member))
            member.engine.resume(everything)
        assert member.records, "nothing came"
        # A batch that is larger than its part comes alone, one in a response.
        assert most <= FETCH + 2 * RECORD + 1_000, f"{most:,} bytes held"
        member.engine.resume(everything)
        producer.produce(name, value=b"G" * GIANT, partition=0)
        assert producer.flush(30) == 0
        until(lambda: len(member.records) == 4 * PARTITIONS + 1, member)
        assert max(len(r.value or b"") for r in member.records) == GIANT
        for n in range(PARTITIONS):
            found = member.offsets(name, n)
            assert found == sorted(set(found)), n
