"""A dead-letter topic that says no: the record waits until it says yes, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from devtools.broker import Admin, Broker, have_broker
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.conftest import unavailable
from tests.scenarios.course import Course, until_done, warnings

USER, PASSWORD = "shop", "right-horse"
POISON, EACH = 5, 20


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Not everybody's: one with a listener on which nothing is allowed that no ACL allows."""
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker(sasl_users={USER: PASSWORD}) as running:
        yield running


def allow_larger(bootstrap: str, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": bootstrap})
    for future in client.incremental_alter_configs([resource]).values():
        future.result(20)


def test_too_large_and_forbidden(
    make_course: Callable[..., Course],
    serve: Callable[..., Service],
    broker: Broker,
    admin: Admin,
    group: str,
) -> None:
    small, forbidden = f"small-{group}", f"forbidden-{group}"
    admin.create_topic(small, 1, config={"max.message.bytes": "500"})
    admin.create_topic(forbidden, 1)
    courses = {
        dead: make_course(f"to-{dead}", partitions=2, then=["dead_letter", dead])
        for dead in (small, forbidden)
    }
    for course in courses.values():
        admin.grant(USER, "read", "topic", course.topic)
        admin.grant(USER, "read", "group", course.group)
        made = [Task(n % 2, b"key", bytes(2_000)) for n in range(2 * EACH)]
        made[2 * POISON] = Task(0, b"bad", bytes(2_000), poison="no such customer")
        course.send(made)
    admin.grant(USER, "write", "topic", small)
    service = serve(
        *courses.values(),
        bootstrap_servers=broker.sasl_bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password=PASSWORD,
    ).start()
    waiting = EACH - POISON
    until_done(service.until, *courses.values(), but=2 * waiting)
    service.until_logged(f"topic {small} takes no record of")
    service.until_logged(f"grant it WRITE on Topic:{forbidden}")
    service.until(
        lambda: f"{forbidden!r} may not be written to" in warnings(service),
        "a warning in /status",
    )
    for course in courses.values():
        service.until(lambda c=course: c.positions()[1] == EACH, "the other partition's commit")  # type: ignore[misc]
        assert course.positions()[0] == POISON
        assert course.done() == course.total - waiting
    assert service.get("/livez")[0] == 200
    assert not read(broker.bootstrap, small)

    allow_larger(broker.bootstrap, small, 100_000)
    admin.grant(USER, "write", "topic", forbidden)
    until_done(service.until, *courses.values(), but=2)
    assert service.stop() == 0
    for dead, course in courses.items():
        verdict = course.judge(without=[(0, POISON)])
        assert verdict.perfect, f"{course.topic}: {verdict}"
        (letter,) = read(broker.bootstrap, dead)
        assert (letter.key(), letter.value()) == (b"bad", bytes(2_000))
        assert course.positions() == course.sent
