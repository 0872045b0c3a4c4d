"""When is a broker ready? When it answers what a client asks first, and could create a topic."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from .ports import HOST

ClientConfig = dict[str, str | int | float | bool]

QUIET_CLIENT: ClientConfig = {"log_level": 0}
"""Silences librdkafka's lines on stderr ("Connection refused"): they are no news here."""

_POLL_INTERVAL = 0.02


def wait_until_ready(port: int, timeout: float, check: Callable[[], None]) -> bool:
    """Wait up to `timeout` seconds for the broker on loopback `port`; return whether it is ready.

    Ready means: it would create a topic (a dry run: the controller is active and the broker is not
    fenced), and every partition that it already has is led by someone.

    Args:
        port: of the plain listener.
        timeout: seconds.
        check: called over and over; raises when waiting has become pointless.
    """
    deadline = time.monotonic() + timeout
    while not _listens(port):
        check()
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    # Not before something listens: librdkafka backs off after a refused connection.
    admin = AdminClient({"bootstrap.servers": f"{HOST}:{port}", **QUIET_CLIENT})
    while not (_could_create_topic(admin) and _all_led(admin)):
        check()
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _could_create_topic(admin: AdminClient) -> bool:
    probe = NewTopic("penstock-broker-ready", num_partitions=1, replication_factor=1)
    try:
        admin.create_topics([probe], validate_only=True, request_timeout=2.0)[probe.topic].result()
    except KafkaException:
        return False
    return True


def _all_led(admin: AdminClient) -> bool:
    try:
        topics = admin.list_topics(timeout=2.0).topics
    except KafkaException:
        return False
    return all(
        partition.leader >= 0
        for topic in topics.values()
        for partition in topic.partitions.values()
    )
