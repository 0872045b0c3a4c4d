"""A broker that says no: exit 1, with a sentence that names the principal and the resource."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import pytest

from devtools.broker import Admin, Broker, have_broker
from devtools.service import Service
from devtools.stream import Stream
from tests.conftest import unavailable
from tests.scenarios.support import Make, assert_failed, lines

USER, PASSWORD = "shop", "right-horse"
VALUE = b"a-value-that-is-nobody-s-business"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Broker]:
    """A broker with a SASL listener, on which nothing is allowed that no ACL allows."""
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker(sasl_users={USER: PASSWORD}) as running:
        yield running


@pytest.fixture
def admin(guarded: Broker) -> Admin:
    return Admin(guarded.bootstrap)


def secured(make: Make, broker: Broker, topic: str, group: str, **more: object) -> Service:
    options: dict[str, object] = {
        "bootstrap_servers": broker.sasl_bootstrap,
        "topics": topic,
        "group_id": group,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": USER,
        "sasl_password": PASSWORD,
        "metadata_refresh": 1,
        **more,
    }
    return make(**options)


def test_credentials_and_acls_that_are_right(
    make_service: Make, guarded: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    """At the level that tells most, and with a seat that is given up by the admin client.

    Whether the password, or the value of a record, got into a log, an answer or a file is
    looked for when the service is closed.
    """
    admin.grant(USER, "read", "topic", topic)
    admin.grant(USER, "read", "group", group)
    service = secured(
        make_service, guarded, topic, group, log_level="DEBUG", instance_id="shop"
    ).start()
    service.secrets.add(VALUE.decode())
    service.until_ready()
    with_value = confluent_kafka.Producer({"bootstrap.servers": guarded.bootstrap})
    with_value.produce(topic, b"0 0 " + VALUE, partition=0)
    assert with_value.flush(30) == 0
    Stream(guarded.bootstrap, topic, 12, rate=1).send(500)
    service.until(lambda: lines(tmp_path / "ledger") >= 501, "all records")
    for pid in (service.pid, *service.workers()):
        assert PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert service.stop() == 0
    assert sum(admin.committed_offsets(group, topic).values()) == 501
    assert service.command("check", service.target).returncode == 0
    debug = {str(line["logger"]) for line in service.log_lines() if line["level"] == "debug"}
    assert "kafka.coordinator" in debug, "what helps to understand a group is told"


@pytest.mark.parametrize("instance", [None, "shop"])
def test_wrong_password(
    make_service: Make, guarded: Broker, topic: str, group: str, instance: str | None
) -> None:
    service = secured(
        make_service, guarded, topic, group, sasl_password="wrong-horse", instance_id=instance
    ).start()
    assert_failed(service, 1, f"User:{USER}", "refused the credentials", timeout=30)
    assert "wrong-horse" not in service.exit_record()["reason"]


def test_unknown_mechanism(make_service: Make, guarded: Broker, topic: str, group: str) -> None:
    service = secured(make_service, guarded, topic, group, sasl_mechanism="SCRAM-SHA-256").start()
    assert_failed(service, 1, f"User:{USER}", "PENSTOCK_SASL_MECHANISM", timeout=30)


def test_password_withdrawn_while_running(
    make_service: Make, topic_of_own: str, group: str, own_guarded: Broker, tmp_path: Path
) -> None:
    service = secured(make_service, own_guarded, topic_of_own, group).start().until_ready()
    Stream(own_guarded.bootstrap, topic_of_own, 3, rate=1).send(30)
    service.until(lambda: lines(tmp_path / "ledger") >= 30, "all records")
    assert own_guarded._sasl_users is not None
    own_guarded._sasl_users[USER] = "another"
    own_guarded.restart()
    assert_failed(service, 1, f"User:{USER}", "refused the credentials", timeout=40)


@pytest.fixture
def own_guarded() -> Iterator[Broker]:
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker(sasl_users={USER: PASSWORD}) as running:
        yield running


@pytest.fixture
def topic_of_own(own_guarded: Broker, group: str) -> str:
    name = "orders-of-own"
    admin = Admin(own_guarded.bootstrap)
    admin.create_topic(name, 3)
    admin.grant(USER, "read", "topic", name)
    admin.grant(USER, "read", "group", group)
    return name


def test_no_acl_on_the_topic(
    make_service: Make, guarded: Broker, admin: Admin, topic: str, group: str
) -> None:
    admin.grant(USER, "read", "group", group)
    service = secured(make_service, guarded, topic, group).start()
    assert_failed(service, 1, f"User:{USER}", f"Topic:{topic}", "READ")


def test_describe_but_no_read_on_the_topic(
    make_service: Make, guarded: Broker, admin: Admin, topic: str, group: str
) -> None:
    admin.grant(USER, "read", "group", group)
    admin.grant(USER, "describe", "topic", topic)
    service = secured(make_service, guarded, topic, group).start()
    assert_failed(service, 1, f"User:{USER}", f"Topic:{topic}", "READ")


def test_no_acl_on_the_group(
    make_service: Make, guarded: Broker, admin: Admin, topic: str, group: str
) -> None:
    admin.grant(USER, "read", "topic", topic)
    service = secured(make_service, guarded, topic, group).start()
    assert_failed(service, 1, f"User:{USER}", f"Group:{group}", "READ")


@pytest.mark.parametrize("describe", [False, True])
def test_read_on_the_topic_revoked_while_running(
    make_service: Make,
    guarded: Broker,
    admin: Admin,
    topic: str,
    group: str,
    tmp_path: Path,
    *,
    describe: bool,
) -> None:
    admin.grant(USER, "read", "topic", topic)
    admin.grant(USER, "read", "group", group)
    if describe:
        admin.grant(USER, "describe", "topic", topic)
    service = secured(make_service, guarded, topic, group).start().until_ready()
    Stream(guarded.bootstrap, topic, 12, rate=1).send(120)
    service.until(lambda: lines(tmp_path / "ledger") >= 120, "all records")
    admin.revoke(USER, "read", "topic", topic)
    assert_failed(service, 1, f"User:{USER}", f"Topic:{topic}", "READ", timeout=40)


def test_read_on_the_group_revoked_while_running(
    make_service: Make, guarded: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    admin.grant(USER, "read", "topic", topic)
    admin.grant(USER, "read", "group", group)
    service = secured(make_service, guarded, topic, group).start().until_ready()
    stream = Stream(guarded.bootstrap, topic, 12, rate=100).start()
    service.until(lambda: lines(tmp_path / "ledger") >= 120, "records")
    admin.revoke(USER, "read", "group", group)
    assert_failed(service, 1, f"User:{USER}", f"Group:{group}", "READ", timeout=40)
    stream.stop()
