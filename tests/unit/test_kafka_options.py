"""PENSTOCK_KAFKA_OPTIONS: every option gets to every client it concerns, or is refused."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.net.manager import KafkaConnectionManager
from pydantic import ValidationError

from penstock.kafka.config import client_options, consumer_options
from penstock.kafka.net import NetClient
from penstock.kafka_options import CONSUMER, EVERY_CLIENT, REFUSED, problems
from penstock.settings import Settings, env_name
from tests.unit.making import make_settings

#: A value for each option that is passed on, as JSON has it, and as the client is to see it.
GIVEN: dict[str, Any] = {
    "api_version": [3, 0],
    "client_dns_lookup": "resolve_canonical_bootstrap_servers_only",
    "connections_max_idle_ms": 300_000,
    "max_in_flight_requests_per_connection": 3,
    "proxy_url": "socks5://proxy:1080",
    "receive_message_max_bytes": 200_000_000,
    "reconnect_backoff_max_ms": 900,
    "reconnect_backoff_ms": 70,
    "request_timeout_ms": 20_000,
    "retry_backoff_ms": 50,
    "sasl_kerberos_domain_name": "example.com",
    "sasl_kerberos_name": "kafka/example.com",
    "sasl_kerberos_service_name": "kafka2",
    "socket_options": [[6, 1, 1]],
    "ssl_context": ssl.create_default_context(),
    "check_crcs": False,
    "client_rack": "a",
    "enable_incremental_fetch_sessions": False,
    "fetch_max_wait_ms": 100,
    "fetch_max_bytes": 1_000_000,
    "max_partition_fetch_bytes": 100_000,
    "fetch_min_bytes": 2,
    "isolation_level": "read_committed",
}


def settings(**options: Any) -> Settings:
    more: dict[str, Any] = {}
    if any(name.startswith("ssl") for name in options):
        more["security_protocol"] = "SSL"
    if any(name.startswith("sasl") for name in options):
        more |= {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"}
    return make_settings(kafka_options=options, **more)


def test_each_option_of_the_client_has_one_place() -> None:
    known = [*EVERY_CLIENT, *CONSUMER, *REFUSED]
    assert sorted(known) == sorted(KafkaConsumer.DEFAULT_CONFIG)
    assert set(EVERY_CLIENT) <= set(KafkaAdminClient.DEFAULT_CONFIG)
    assert not set(CONSUMER) & set(KafkaConnectionManager.DEFAULT_CONFIG)
    assert set(GIVEN) == {*EVERY_CLIENT, *CONSUMER}


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_reaches_every_client_that_it_concerns(name: str) -> None:
    given = settings(**{name: GIVEN[name]})
    wanted = (3, 0) if name == "api_version" else GIVEN[name]
    consumer = consumer_options(given, "billing", None)
    assert consumer[name] == wanted or list(consumer[name]) == wanted
    shared = client_options(given)  # what dead letters go out on, and what leaves the group
    assert (name in shared) == (name in EVERY_CLIENT)
    assert set(shared) <= set(KafkaAdminClient.DEFAULT_CONFIG)
    if name in shared and name in KafkaConnectionManager.DEFAULT_CONFIG:
        client = NetClient(**shared)
        try:
            assert client._manager.config[name] == consumer[name]
        finally:
            client.close()


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_is_decided_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} cannot be set here: ") as caught:
        make_settings(kafka_options={name: "x"})
    for word in str(caught.value).split():
        if word.startswith("PENSTOCK_"):
            setting = word.strip(":,'s")
            assert setting in {env_name(field) for field in Settings.model_fields}


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"fetch_min_byts": 1},
        "consumer; did you mean fetch_min_bytes?",
    ),
    ({"acks": "all"}, "acks is no option of kafka-python's consumer"),
    ({"sasl_jaas_config": "x"}, "sasl_jaas_config is no option"),
    ({"fetch_min_bytes": "10MB"}, "fetch_min_bytes='10MB': a whole number from 0 to 2147483647"),
    ({"fetch_min_bytes": True}, "fetch_min_bytes=True: a whole number"),
    ({"fetch_min_bytes": 2**31}, "a whole number from 0"),
    ({"fetch_min_bytes": None}, "a whole number from 0"),
    ({"check_crcs": "no"}, "check_crcs='no': true or false"),
    ({"isolation_level": "committed"}, '"read_uncommitted" or "read_committed"'),
    ({"isolation_level": []}, '"read_uncommitted" or "read_committed"'),
    ({"api_version": "3.0"}, "two or three whole numbers"),
    ({"api_version": [3]}, "two or three whole numbers"),
    ({"socket_options": [[6, 1]]}, "a list of [level, name, value]"),
    ({"client_rack": ""}, "client_rack='': text"),
    ({"ssl_context": {}}, "an ssl.SSLContext, given in the code"),
    ({"proxy_url": ["http://me:hunter2@proxy"]}, "proxy_url: text"),
    ({"fetch_max_wait_ms": 30_000}, "fetch_max_wait_ms (30000) must be below request_timeout_ms"),
    ({"request_timeout_ms": 600_000}, "must be below connections_max_idle_ms (540000)"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_one_sentence(options: dict[str, Any], sentence: str) -> None:
    [said] = problems(options)
    assert sentence in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kafka_options": {"ssl_context": GIVEN["ssl_context"]}}, "use SSL or SASL_SSL"),
        (
            {
                "kafka_options": {"ssl_context": GIVEN["ssl_context"]},
                "security_protocol": "SSL",
                "ssl_cafile": Path("/dev/null"),
            },
            "an ssl_context decides everything",
        ),
        ({"kafka_options": {"sasl_kerberos_name": "x"}}, "PENSTOCK_SASL_MECHANISM=GSSAPI"),
    ],
)
def test_options_that_would_mean_nothing(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        make_settings(**values)
