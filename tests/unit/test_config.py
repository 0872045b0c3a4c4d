from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from penstock.kafka.config import client_options, consumer_options
from penstock.kafka.fetching import Fetching
from tests.unit.making import make_settings


def options(instance: str | None = None, **values: Any) -> dict[str, Any]:
    return consumer_options(make_settings(**values), "billing", instance)


def test_what_the_drain_depends_on() -> None:
    made = options("a-0", session_timeout=10.0, max_poll_interval=120.0, max_poll_records=7)
    assert made["enable_auto_commit"] is False
    assert made["partition_assignment_strategy"] == [CooperativeStickyAssignor]
    assert (made["group_id"], made["group_instance_id"]) == ("billing", "a-0")
    assert (made["session_timeout_ms"], made["heartbeat_interval_ms"]) == (10_000, 3_000)
    assert (made["max_poll_interval_ms"], made["max_poll_records"]) == (120_000, 7)
    assert made["auto_offset_reset"] == "earliest"
    assert made["allow_auto_create_topics"] is False
    assert not {"key_deserializer", "value_deserializer"} & set(made)


def test_further_options_get_through() -> None:
    made = options(
        kafka_options={"fetch_max_wait_ms": 9, "api_version": [3, 0], "check_crcs": False}
    )
    assert (made["fetch_max_wait_ms"], made["api_version"], made["check_crcs"]) == (
        9,
        (3, 0),
        False,
    )


def test_what_is_fetched_follows_from_one_setting() -> None:
    made = options(fetch_bytes=2_000_000)
    assert (made["fetch_max_bytes"], made["max_partition_fetch_bytes"]) == (2_000_000, 2_000_000)


def test_less_may_be_fetched_at_once_but_not_more() -> None:
    made = options(fetch_bytes=2_000_000, kafka_options={"fetch_max_bytes": 9})
    assert (made["fetch_max_bytes"], made["max_partition_fetch_bytes"]) == (9, 2_000_000)
    with pytest.raises(ValueError, match=r"max_partition_fetch_bytes=9, more than PENSTOCK_F"):
        make_settings(fetch_bytes=8, kafka_options={"max_partition_fetch_bytes": 9})


def test_a_part_is_never_larger_than_wanted() -> None:
    config = {"max_partition_fetch_bytes": 9}
    owned = SimpleNamespace(assignment=range(2))
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(config=config), _subscription=owned)
    fetching = Fetching(consumer, fetch_bytes=100)
    for partitions, part in ((2, 9), (50, 2), (1, 9)):
        owned.assignment = range(partitions)
        fetching.fit()
        assert config["max_partition_fetch_bytes"] == part


def test_the_client_knows_every_option() -> None:
    made = options("a-0", security_protocol="SSL")
    assert set(made) <= set(KafkaConsumer.DEFAULT_CONFIG)


def test_security() -> None:
    made = client_options(
        make_settings(
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="me",
            sasl_password="hunter2",
            ssl_cafile="/dev/null",
            ssl_check_hostname=False,
        )
    )
    assert (made["sasl_mechanism"], made["sasl_plain_username"]) == ("PLAIN", "me")
    assert made["sasl_plain_password"] == "hunter2"
    assert (made["ssl_cafile"], made["ssl_check_hostname"]) == ("/dev/null", False)
    assert not any(name.startswith(("sasl", "ssl")) for name in client_options(make_settings()))
