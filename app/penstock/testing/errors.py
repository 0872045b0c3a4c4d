"""What is wrong with a test, not with a handler."""

from __future__ import annotations

from penstock.errors import PenstockError


class KitError(PenstockError):
    """The kit was asked for something that cannot be, or waits for what never comes."""
