"""The private parts of kafka-python that the engine leans on are there."""

from __future__ import annotations

import operator

import pytest
from kafka import KafkaConsumer
from kafka.structs import MemberState

from devtools.broker import Broker
from devtools.stream import Stream
from penstock.kafka import last_will
from penstock.kafka.kafka_python import PRIVATE
from penstock.kafka.net import NetClient
from penstock.kafka.port import Membership
from tests.integration.member import Member, until


@pytest.mark.parametrize("path", [*PRIVATE, *last_will.PRIVATE])
def test_private(broker: Broker, path: str) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id="private", kafka_client=NetClient
    )
    try:
        operator.attrgetter(path)(consumer)
    finally:
        consumer.close()


def test_a_forgotten_rebalance_is_taken_up_again(broker: Broker, topic: str, group: str) -> None:
    """Trap 2 from where it ends: rebalancing, heartbeats off, and nothing to rejoin for.

    The way into it is a race inside the client that cannot be made to happen at will against
    a real broker, so the client is put there by hand; the way out is real.
    """
    with Member(broker.bootstrap, group, topic) as member:
        until(lambda: member.owns(*range(12), topic=topic), member)
        coordinator = member.engine._consumer._coordinator
        with coordinator._lock:
            coordinator.state = MemberState.REBALANCING
            coordinator.rejoin_needed = False
            coordinator._disable_heartbeat()
        Stream(broker.bootstrap, topic, 12, rate=0).send(12)
        until(lambda: len({r.partition for r in member.records}) == 12, member)
        until(lambda: member.engine.membership() is Membership.STABLE, member)
