"""The Kafka to play on: a given one, a real broker of our own, or an imitation of one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from devtools.broker import Admin, Broker, BrokerError, BrokerUnavailable, MockBroker, have_broker
from devtools.broker.classpath import kafka_version

PARTITIONS = 12
_MOCK_PARTITIONS = 4  # what librdkafka's mock gives every topic

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """Where the demo plays.

    ``settings`` are the service's that this Kafka asks for, ``rate`` is orders a second that
    it and so many workers are comfortable with. ``limits`` is what a verdict got here does not
    say; empty for a real one.
    """

    bootstrap: str
    topic: str
    partitions: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 600.0
    limits: str = ""


def open_cluster(stack: ExitStack, say: Say, *, given: str, mock: bool) -> Cluster:
    """Find or start a Kafka, with a topic for this run; ``stack`` undoes all of it.

    Raises:
        BrokerError: the given cluster does not answer, or the broker did not start.
    """
    topic = f"penstock-demo-{int(time.time())}-{os.getpid()}"
    if given and not mock:
        return _use(stack, say, given, topic)
    reason = "--mock was given" if mock else have_broker()
    if reason is None:
        try:
            return _start(stack, say, topic)
        except BrokerUnavailable as why:
            reason = why.reason
    return _imitate(stack, say, topic, reason)


def _use(stack: ExitStack, say: Say, bootstrap: str, topic: str) -> Cluster:
    admin = Admin(bootstrap)
    admin.create_topic(topic, PARTITIONS)
    stack.callback(_forget, admin, topic)
    say(f"your Kafka at {bootstrap}; topic {topic}, {PARTITIONS} partitions, deleted at the end")
    return Cluster(bootstrap, topic, PARTITIONS, {"workers": 2})


def _forget(admin: Admin, topic: str) -> None:
    with contextlib.suppress(BrokerError):  # the verdict is in; a leftover topic harms nobody
        admin.delete_topic(topic)


def _start(stack: ExitStack, say: Say, topic: str) -> Cluster:
    say(f"starting Apache Kafka {kafka_version()}")
    broker = stack.enter_context(Broker())
    Admin(broker.bootstrap).create_topic(topic, PARTITIONS)
    say(f"Kafka is ready at {broker.bootstrap}; topic {topic}, {PARTITIONS} partitions")
    return Cluster(broker.bootstrap, topic, PARTITIONS, {"workers": 2})


def _imitate(stack: ExitStack, say: Say, topic: str, reason: str) -> Cluster:
    mock = stack.enter_context(MockBroker())
    first_line = reason.partition("\n")[0]
    say(f"no real Kafka ({first_line}): librdkafka's mock cluster stands in, with one worker")
    return Cluster(
        mock.bootstrap,
        topic,
        _MOCK_PARTITIONS,
        {
            "workers": 1,
            "kafka_options": '{"api_version": [2, 3]}',
            # A member that left is not forgotten before its session ends.
            "session_timeout": 6,
            "heartbeat_interval": 1,
        },
        rate=300.0,
        limits=(
            "On a mock cluster: one worker, so no rebalance between members took place, and a "
            "member that left is waited for, which makes the gaps long. With Java 17 and Maven, "
            "`make demo` runs on Apache Kafka itself."
        ),
    )
