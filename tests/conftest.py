"""Fixtures for everything that needs a broker, and skips that CI turns into failures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.broker import Admin, Broker, BrokerUnavailable, have_broker
from devtools.service import Service

_REQUIRED = frozenset(filter(None, os.environ.get("PENSTOCK_REQUIRE", "").split(",")))
_numbers = itertools.count(1)


def unavailable(what: str, reason: str) -> None:
    """Skip, or fail where CI says that ``what`` must be there (``PENSTOCK_REQUIRE``)."""
    if what in _REQUIRED:
        pytest.fail(f"{what} is required here: {reason}")
    pytest.skip(f"no {what}: {reason}")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One real broker for all tests that do not harm it."""
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    try:
        with Broker() as running:
            yield running
    except BrokerUnavailable as error:
        unavailable("kafka", str(error))


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker of the test's own, to kill and cut off."""
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker() as running:
        yield running


@pytest.fixture
def admin(broker: Broker) -> Admin:
    """Admin helpers on the shared broker."""
    return Admin(broker.bootstrap)


@pytest.fixture
def topic(admin: Admin) -> str:
    """A new topic of 12 partitions."""
    name = f"orders-{os.getpid()}-{next(_numbers)}"
    admin.create_topic(name, 12)
    return name


@pytest.fixture
def group() -> str:
    """A new consumer group name."""
    return f"billing-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Make services that are ended with the test, whatever happens."""
    made: list[Service] = []

    def make(target: str = "devtools.apps.ledger:app", **options: object) -> Service:
        directory = tmp_path / f"service-{len(made)}"
        env = dict(options.pop("env", {}))  # type: ignore[call-overload] # a mapping of strings
        env.setdefault("LEDGER", str(tmp_path / "ledger"))
        service = Service(target, directory, env=env, **options)  # type: ignore[arg-type] # settings
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()
