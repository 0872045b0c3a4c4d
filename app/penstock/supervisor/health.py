"""What the probes answer. Pure: facts in, verdicts out.

Liveness asks "would killing this help?". So it fails on a stalled poll loop, on a record
that is in its handler for too long, and on a worker that is gone; never on a rebalance, a
broker outage, a drain or quiet: killing a consumer for those makes them worse.

Readiness asks "is it doing its work?". It does not require an assignment: with more members
than partitions somebody always has none, and a rollout that waits for it would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.board import Working
from penstock.http.port import Verdict
from penstock.lifecycle import State


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One worker, as the probes see it. ``polled_at`` is monotonic, ``None`` before the first."""

    index: int
    joined: bool
    polled_at: float | None
    working: Sequence[Working]
    #: Told to drain: it has a deadline of its own, and killing it earlier would not help.
    excused: bool = False


def live(
    workers: Iterable[WorkerHealth],
    *,
    now: float,
    handler_timeout: float,
    poll_stall_timeout: float,
    gone: str | None,
) -> Verdict:
    """Liveness. ``gone`` tells of a worker that ended without being asked to."""
    reasons = [gone] if gone is not None else []
    for worker in workers:
        if worker.excused:
            continue
        for held in worker.working:
            age = now - held.since
            if age > handler_timeout:
                reasons.append(
                    f"worker {worker.index}: {held} has been in its handler for {age:.0f} s "
                    f"(PENSTOCK_HANDLER_TIMEOUT is {handler_timeout:g})"
                )
        if worker.polled_at is not None:
            silent = now - worker.polled_at
            if silent > poll_stall_timeout:
                reasons.append(
                    f"worker {worker.index}: the poll loop has stood still for {silent:.0f} s "
                    f"(PENSTOCK_POLL_STALL_TIMEOUT is {poll_stall_timeout:g})"
                )
    return Verdict(not reasons, tuple(reasons))


def ready(state: State, workers: Iterable[WorkerHealth]) -> Verdict:
    """Readiness: running, and every worker has joined its group and polled."""
    if state is not State.RUNNING:
        return Verdict(ok=False, reasons=(f"the service is {state}", *_not_joined(workers)))
    reasons = tuple(_not_joined(workers))
    return Verdict(not reasons, reasons)


def started(workers: Iterable[WorkerHealth], *, before: bool) -> Verdict:
    """Start-up: every worker has joined for the first time (``before``: it already was so)."""
    reasons = () if before else tuple(_not_joined(workers))
    return Verdict(not reasons, reasons)


def _not_joined(workers: Iterable[WorkerHealth]) -> Iterable[str]:
    return (
        f"worker {worker.index} has not joined its group"
        for worker in workers
        if not worker.excused and not (worker.joined and worker.polled_at is not None)
    )
