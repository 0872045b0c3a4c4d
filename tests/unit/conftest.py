"""Unit tests know nothing of the environment they run in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# A busy machine is slow; that is no property of the code. pytest-timeout ends what hangs.
hypothesis.settings.register_profile(
    "unit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True, scope="module")
def _no_settings_from_outside() -> Iterator[None]:
    """CI steers the other tests with PENSTOCK_* names, which are no settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def no_log() -> Iterator[None]:
    """Handlers that fail by the hundred would draw their tracebacks for minutes."""
    before = structlog.get_config()
    structlog.configure(
        processors=[lambda _logger, _name, _event: ""],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    yield
    structlog.configure(**before)
