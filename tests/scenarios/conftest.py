"""A service on a topic of its own, its ledger, and ways to give it work and trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.broker import Broker
from devtools.load import Ledger, Load, Trap
from devtools.service import Service


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
