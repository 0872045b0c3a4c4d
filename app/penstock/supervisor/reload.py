"""What became of the reloads (HUP) that were asked for. Pure: no I/O, no clock.

Told in ``/status`` and in ``penstock_reloads_total``, for whoever asked and waits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from penstock.telemetry.catalog import ReloadOutcome

State = Literal["none", "wanted", "running", "done", "given up"]


@dataclass(slots=True)
class Reloads:
    """The reload asked for last, and how many ended how. Times in seconds since the epoch.

    ``id`` counts those that were accepted. One that is asked for while another runs comes
    after it, so that it reaches every worker that was started before it was asked for.
    """

    state: State = "none"
    id: int = 0
    reason: str = ""
    requested_by: str = ""
    asked_at: float | None = None
    ended_at: float | None = None
    #: The one under way.
    running: int | None = None
    #: How they ended, for metrics.
    counts: Counter[ReloadOutcome] = field(default_factory=Counter)

    def asked(self, by: str, at: float) -> None:
        """One was accepted."""
        self.id += 1
        self.state, self.reason, self.requested_by = "wanted", "", by
        self.asked_at, self.ended_at = at, None

    def begin(self) -> None:
        """It starts."""
        self.state, self.running = "running", self.id

    def over(self, at: float, *, given_up: str | None = None) -> None:
        """The one under way is done, or was given up for this reason."""
        self.counts["done" if given_up is None else "given_up"] += 1
        if self.running in (None, self.id):
            self.state = "done" if given_up is None else "given up"
            self.reason, self.ended_at = given_up or "", at
        self.running = None

    def interrupt(self, at: float, why: str) -> None:
        """The service ends: whatever was under way or wanted will not be."""
        if self.running is not None:
            self.over(at, given_up=why)
        if self.state == "wanted":
            self.over(at, given_up=why)
