"""A service on a topic of its own, its ledger, and ways to give it work and trouble."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devtools import tasks
from devtools.broker import Admin, Broker
from devtools.load import Ledger, Load, Trap
from devtools.service import Service
from devtools.tasks import Reader
from tests.conftest import unavailable
from tests.scenarios.course import Course


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the handlers of this test's services wrote down."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    """Trouble for services that run ``devtools.apps.mischief``."""
    return Trap(tmp_path / "trap")


@pytest.fixture
def launch(
    make_service: Callable[..., Service], broker: Broker, topic: str, group: str, trap: Trap
) -> Callable[..., Service]:
    """Make a service on this test's topic and group; ``launch(slow=2, workers=2)``."""

    def make(
        target: str = "devtools.apps.mischief:app", *, slow: float = 0, **options: object
    ) -> Service:
        env = {"MISCHIEF": str(trap.path), "LEDGER_SLEEP": str(slow)}
        settings = {"bootstrap_servers": broker.bootstrap, "topics": topic, "group_id": group}
        return make_service(target, env=env, **{**settings, **options})

    return make


@pytest.fixture
def load_for(broker: Broker, ledger: Ledger) -> Iterator[Callable[..., Load]]:
    """Make the load of a service: ``load_for(service).start()``, or its stream's ``send``."""
    made: list[Load] = []

    def make(service: Service, *, partitions: int = 12, rate: float = 300) -> Load:
        made.append(Load(service, ledger, broker.bootstrap, partitions=partitions, rate=rate))
        return made[-1]

    yield make
    for load in made:
        load.stream.close()


@pytest.fixture
def make_course(
    broker: Broker, admin: Admin, group: str, tmp_path: Path
) -> Iterator[Callable[..., Course]]:
    """Make a topic and its subscription: ``make_course("orders", order_by="key")``."""
    made: list[Course] = []

    def make(
        name: str = "orders",
        *,
        partitions: int = 12,
        config: Mapping[str, str] | None = None,
        kind: str = "record",
        asynchronous: bool = False,
        trouble: Path | None = None,
        **options: Any,
    ) -> Course:
        topic = f"{name}-{group}"
        admin.create_topic(topic, partitions, config=config)
        ledger = tmp_path / f"ledger-{len(made)}"
        reader = Reader(topic, topic, ledger, kind, asynchronous, trouble, options)
        made.append(Course(broker.bootstrap, partitions, reader))
        return made[-1]

    yield make
    for course in made:
        if course.stream is not None:
            course.stream.close()


@pytest.fixture
def serve(make_service: Callable[..., Service], broker: Broker) -> Callable[..., Service]:
    """Make a service that reads these courses, each with a worker: ``serve(one, another)``."""

    def make(*courses: Course, **settings: object) -> Service:
        env = tasks.environment(*(course.reader for course in courses))
        settings.setdefault("bootstrap_servers", broker.bootstrap)
        return make_service(tasks.APP, env=env, **settings)

    return make


def _until_empty(cgroup: Path) -> None:
    deadline = time.monotonic() + 10
    while (cgroup / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)  # the poll interval of a wait on a condition


@pytest.fixture
def cgroup() -> Iterator[Callable[[int], tuple[str, ...]]]:
    """Make a memory cgroup, v2 or v1; what is returned wraps a command that is to run in it.

    Ask for it before what makes services, which have to be gone when it is removed.
    """
    root = Path("/sys/fs/cgroup")
    name = f"penstock-test-{os.getpid()}"
    v2 = (root / "cgroup.controllers").exists()
    group = (root if v2 else root / "memory") / name

    def make(limit: int) -> tuple[str, ...]:
        try:
            if v2:
                (root / "cgroup.subtree_control").write_text("+memory")
            group.mkdir()
            if v2:
                (group / "memory.max").write_text(str(limit))
                (group / "memory.swap.max").write_text("0")
            else:
                (group / "memory.limit_in_bytes").write_text(str(limit))
        except OSError as error:
            unavailable("cgroup", str(error))
        return ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")

    yield make
    if group.exists():
        _until_empty(group)
        group.rmdir()
