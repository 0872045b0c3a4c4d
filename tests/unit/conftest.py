"""Unit tests know nothing of the environment they run in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_settings_from_outside() -> Iterator[None]:
    """CI steers the other tests with PENSTOCK_* names, which are no settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
            patch.delenv(name)
        yield
