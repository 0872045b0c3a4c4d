"""The service as HTTP sees it: probes, status, metrics, requests. Called from any thread.

Everything is read from memory under the service's lock; nothing here does I/O.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import penstock
from penstock import exits
from penstock.http import models
from penstock.http.port import Verdict
from penstock.lifecycle import Kind, Outcome, Request
from penstock.supervisor import health
from penstock.supervisor.exit_record import ExitRecord, InFlight
from penstock.supervisor.reload import Reloads
from penstock.telemetry import collector

if TYPE_CHECKING:
    from penstock.supervisor.child import Child
    from penstock.supervisor.service import Supervisor


def build_info() -> dict[str, str]:
    """What runs, for ``/status`` and ``penstock_build_info``."""
    return {
        "version": penstock.__version__,
        "python": platform.python_version(),
        "kafka_python": importlib.metadata.version("kafka-python"),
    }


class View:
    """Implements :class:`penstock.http.port.Service` over a supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._build = build_info()
        self.restart_requests: Counter[str] = Counter()

    def ask(self, request: Request) -> Outcome:
        """See the port. The decision is made here and now; the work follows on the main loop."""
        sup = self._sup
        with sup.lock:
            if request.kind is Kind.RESTART:
                self.restart_requests[request.source] += 1
            alive = self._live().ok
            outcome = sup.lifecycle.request(request, alive=alive)
            if outcome is Outcome.ACCEPTED and request.kind in (Kind.STOP, Kind.RESTART):
                sup.asked_at = sup.host.monotonic()
            if outcome is Outcome.ACCEPTED and request.kind is Kind.RELOAD:
                sup.replacing.reloads.asked(by=request.detail or request.source, at=sup.host.wall())
        sup.log.info(
            "request",
            kind=str(request.kind),
            by=request.detail or request.source,
            outcome=str(outcome),
            reason=request.reason or None,
        )
        sup.pipe.wake()
        return outcome

    # -- probes ------------------------------------------------------------------------

    def live(self) -> Verdict:
        """See the port."""
        with self._sup.lock:
            return self._live()

    def _live(self) -> Verdict:
        sup = self._sup
        return health.live(
            sup.healths(),
            now=sup.host.monotonic(),
            handler_timeout=sup.settings.handler_timeout if sup.settings else float("inf"),
            poll_stall_timeout=sup.settings.poll_stall_timeout if sup.settings else float("inf"),
            gone=sup.gone,
        )

    def ready(self) -> Verdict:
        """See the port."""
        sup = self._sup
        with sup.lock:
            return health.ready(sup.lifecycle.state, sup.healths())

    def started(self) -> Verdict:
        """See the port."""
        sup = self._sup
        with sup.lock:
            return health.started(sup.healths(), before=sup.ever_started)

    # -- status ------------------------------------------------------------------------

    def status(self) -> models.Status:
        """See the port."""
        ready, live = self.ready(), self.live()
        sup, now = self._sup, self._sup.host.monotonic()
        with sup.lock:
            life = sup.lifecycle
            history = sup.history
            budget = sup.budget
            return models.Status(
                run=sup.run_id,
                state=life.state,
                ready=ready.ok,
                live=live.ok,
                reasons=[*live.reasons, *ready.reasons],
                intent=None
                if life.intent is None
                else models.Intent(
                    kind=life.intent.kind,
                    reason=life.intent.reason,
                    requested_by=life.requested_by,
                    held=life.held,
                    released=life.released,
                ),
                failure=None
                if life.failure is None
                else models.FailureInfo(
                    code=life.failure.code,
                    name=exits.name_of(life.failure.code),
                    reason=life.failure.reason,
                ),
                drain=None
                if budget is None
                else models.Drain(
                    age_seconds=round(now - sup.asked_at, 3),
                    left_seconds=round(budget.left(now), 3),
                ),
                reload=_reload_model(sup.replacing.reloads),
                uptime_seconds=round(now - sup.began, 3),
                build=models.Build(**self._build),
                group=", ".join(sup.groups),
                topics=sup.topics,
                workers=[self._worker(child, now) for child in sup.slots.workers()],
                last_exit=_exit_model(history.last, history.last_run)
                if history and history.last
                else None,
                exits=[
                    models.ExitCount(code=code, name=name, planned=planned, count=count)
                    for (code, name, planned), count in (history.counts if history else {}).items()
                ],
            )

    def _worker(self, child: Child, now: float) -> models.Worker:
        polled = child.board.poll_at()
        return models.Worker(
            index=child.index,
            pid=child.pid,
            handler=child.reading.name if child.reading else None,
            group=child.reading.group if child.reading else None,
            state=child.facts.state,
            joined=child.joined,
            poll_age_seconds=None if polled is None else round(now - polled, 3),
            instance_id=self._sup.instance_of(child.index),
            assignment=dict(child.facts.assignment),
            lag={topic: dict(lag) for topic, lag in child.facts.lag.items()},
            in_flight=[_in_flight_model(item) for item in child.in_flight(now)],
            warnings=child.facts.warnings,
        )

    # -- metrics -----------------------------------------------------------------------

    def journal(self) -> str | None:
        """See the port."""
        return self._sup.journal_path

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """See the port."""
        sup, now = self._sup, self._sup.host.monotonic()
        with sup.lock:
            assert sup.history is not None  # HTTP starts after the journal
            reading = sup.recycling.reading
            facts = collector.Facts(
                state=sup.lifecycle.state,
                workers=[self._worker_facts(child, now) for child in sup.slots.workers()],
                retired=sup.retired,
                exits=sup.history,
                worker_exits=dict(sup.worker_exits),
                restart_requests=dict(self.restart_requests),
                build=self._build,
                recycles=dict(sup.recycling.counts),
                reloads=dict(sup.replacing.reloads.counts.items()),
                working_set=reading.working_set if reading is not None else None,
                memory_limit=reading.limit if reading is not None else None,
            )
        return collector.exposition(facts, accept)

    def _worker_facts(self, child: Child, now: float) -> collector.WorkerFacts:
        working = child.board.working()
        polled = child.board.poll_at()
        facts = child.facts
        held = self._sup.recycling.processes.get(child.pid)
        return collector.WorkerFacts(
            index=child.index,
            tally=child.tally,
            lag={(t, int(p)): n for t, parts in facts.lag.items() for p, n in parts.items()},
            assigned=sum(map(len, facts.assignment.values())),
            in_flight=sum(w.count for w in working),
            oldest_in_flight=now - working[0].since if working else None,
            poll_age=None if polled is None else max(0.0, now - polled),
            group=child.reading.group if child.reading else "",
            retrying=facts.retrying,
            breaker_closed=facts.breaker == "closed",
            memory=held.resident if held is not None else None,
        )


def _in_flight_model(item: InFlight) -> models.InFlight:
    return models.InFlight(
        topic=item.topic,
        partition=item.partition,
        offset=item.offset,
        key=item.key,
        age_seconds=round(item.age_seconds, 3),
        stack=item.stack,
        count=item.count,
        last=item.last,
    )


def _reload_model(reloads: Reloads) -> models.Reload:
    return models.Reload(
        state=reloads.state,
        id=reloads.id,
        reason=reloads.reason,
        requested_by=reloads.requested_by,
        asked_at=_time(reloads.asked_at),
        ended_at=_time(reloads.ended_at),
    )


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _exit_model(record: ExitRecord, run: str) -> models.ExitRecord:
    return models.ExitRecord(
        code="unknown" if record.code is None else record.code,
        name=record.name,
        planned=record.planned,
        reason=record.reason,
        requested_by=record.requested_by,
        drain_seconds=record.drain_seconds,
        in_flight_at_deadline=[_in_flight_model(i) for i in record.in_flight_at_deadline],
        held_at_death=[_in_flight_model(i) for i in record.held_at_death],
        memory_peak_bytes=record.memory.peak,
        memory_limit_bytes=record.memory.limit,
        uptime_seconds=record.uptime_seconds or 0.0,
        at=datetime.fromtimestamp(record.at, UTC),
        run=run,
    )
