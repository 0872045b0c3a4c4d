"""KILL at random moments for a minute; `make soak` does it for ten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from devtools.broker import Broker
from devtools.soak import Soak

SECONDS = 60.0


@pytest.mark.timeout(400)
def test_kills_at_random_moments(broker: Broker, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)  # told by whatever fails
    # Beside other tests on all cores nothing is quick; `make soak` is strict.
    found = Soak(broker.bootstrap, tmp_path, seed, rate=400, within=15.0).run(SECONDS)
    assert not found.faults, str(found)
    # It was a soak, and not a walk in the sun.
    assert len(found.kills) >= 3, str(found)
    assert found.mapped, str(found)
    assert found.ages, str(found)
