"""Fixtures for everything that needs a broker, and skips that CI turns into failures."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtools.broker import Admin, Broker, BrokerUnavailable, have_broker
from devtools.service import Service

_REQUIRED = frozenset(filter(None, os.environ.get("PENSTOCK_REQUIRE", "").split(",")))
_numbers = itertools.count(1)

#: A cluster of the caller's, used instead of a broker of our own where a test only uses it.
_GIVEN = os.environ.get("PENSTOCK_BOOTSTRAP_SERVERS", "")


@dataclass(frozen=True)
class GivenCluster:
    """All that is known of a cluster that someone else runs."""

    bootstrap: str


@pytest.fixture(autouse=True)
def _callers_settings_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """``PENSTOCK_*`` of whoever runs the tests is not what a test sets."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The platform's tests last: their tools may still be building (`make tools`)."""
    items.sort(key=_how_late)
    for item in items:
        if _how_late(item) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))  # the first waits for them


#: What needs the Go tools.
_LAST = frozenset({"test_chart", "test_compose", "test_kubernetes_docs", "test_manifests"})


#: The first of the image's tests builds it, which takes minutes: the others would wait in line.
_BUILDS_THE_IMAGE = "test_its_configuration_is_the_contract"


def _how_late(item: pytest.Item) -> int:
    path = Path(item.path)
    waits = path.stem == "test_image" and item.name != _BUILDS_THE_IMAGE
    return ("deploy" in path.parts) + 2 * (path.stem in _LAST) + 3 * waits


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was not tested here, and why: a green run must not hide it."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("not tested here")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count} skipped: {reason}")


def unavailable(what: str, reason: str) -> None:
    """Skip, or fail where CI says that ``what`` must be there (``PENSTOCK_REQUIRE``)."""
    if what in _REQUIRED:
        pytest.fail(f"{what} is required here: {reason}")
    pytest.skip(f"no {what}: {reason}")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker | GivenCluster]:
    """One real broker for all tests that do not harm it or look inside: use ``bootstrap`` only."""
    if _GIVEN:
        yield GivenCluster(_GIVEN)
        return
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
    numbers = itertools.count()
    with contextlib.ExitStack() as made:  # each is ended, also when another leaked a secret

        def make(target: str = "devtools.apps.ledger:app", **options: object) -> Service:
            directory = tmp_path / f"service-{next(numbers)}"
            env = dict(options.pop("env", {}))  # type: ignore[call-overload] # a mapping of strings
            env.setdefault("LEDGER", str(tmp_path / "ledger"))
            service = Service(target, directory, env=env, **options)  # type: ignore[arg-type] # settings
            made.callback(service.close)
            return service

        yield make
