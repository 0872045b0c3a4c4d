"""The private parts of kafka-python that the engine leans on are there."""

from __future__ import annotations

import operator

import pytest
from kafka import KafkaConsumer

from devtools.broker import Broker
from penstock.kafka.kafka_python import PRIVATE
from penstock.kafka.net import NetClient


@pytest.mark.parametrize("path", PRIVATE)
def test_private(broker: Broker, path: str) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id="private", kafka_client=NetClient
    )
    try:
        operator.attrgetter(path)(consumer)
    finally:
        consumer.close()
