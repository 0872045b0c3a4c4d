"""The private parts of kafka-python that the engine leans on are there."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Collection

import pytest
from kafka import KafkaConsumer
from kafka.structs import MemberState

from devtools.broker import Broker
from devtools.stream import Stream
from penstock.kafka.kafka_python import PRIVATE, KafkaPythonEngine
from penstock.kafka.net import NetClient
from penstock.kafka.port import Membership
from penstock.record import Partition
from penstock.seat import Seat
from penstock.settings import Settings


@pytest.mark.parametrize("path", PRIVATE)
def test_private(broker: Broker, path: str) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id="private", kafka_client=NetClient
    )
    try:
        operator.attrgetter(path)(consumer)
    finally:
        consumer.close()


class Owner:
    """Takes every partition and keeps it: the least a ``Rebalance`` can be."""

    def assigned(self, partitions: Collection[Partition]) -> bool:
        return False

    def revoking(self, partitions: Collection[Partition]) -> None: ...

    def settled(self, partitions: Collection[Partition]) -> bool:
        return True

    def committable(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return {}

    def revoked(self, partitions: Collection[Partition], *, committed: bool) -> None: ...

    def lost(self, partitions: Collection[Partition]) -> None: ...


def test_a_forgotten_rebalance_is_taken_up_again(broker: Broker, topic: str, group: str) -> None:
    """Trap 2 from where it ends: rebalancing, heartbeats off, and nothing to rejoin for.

    The way into it is a race inside the client that cannot be made to happen at will against
    a real broker, so the client is put there by hand; the way out is real.
    """
    settings = Settings.model_validate({"bootstrap_servers": broker.bootstrap})
    engine = KafkaPythonEngine(settings, (topic,), group, None, Owner(), 10.0)
    try:
        until(engine, lambda: len(engine.assignment()) == 12)
        coordinator = engine._consumer._coordinator
        with coordinator._lock:
            coordinator.state = MemberState.REBALANCING
            coordinator.rejoin_needed = False
            coordinator._disable_heartbeat()
        Stream(broker.bootstrap, topic, 12, rate=0).send(12)
        got: set[Partition] = set()
        until(engine, lambda: len(got) == 12 and engine.membership() is Membership.STABLE, got)
    finally:
        engine.close(Seat.LEAVE, 2.0)


def until(
    engine: KafkaPythonEngine, condition: Callable[[], bool], got: set[Partition] | None = None
) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{engine.membership()}, {engine.assignment()}"
        fetched = engine.poll(0.1, 500)
        if got is not None:
            got.update(fetched)
