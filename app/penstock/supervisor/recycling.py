"""Planned replacements before memory runs out: what :mod:`.recycle` decides, done and told.

Looked at from the supervisor's loop, once a second at most: a handful of small files, read
without the lock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from penstock.cgroup import ProcessMemory, Reading
from penstock.lifecycle import State
from penstock.memory import bound_of, shortfall
from penstock.supervisor.recycle import Futile, Recycle, Recycler, Weight

if TYPE_CHECKING:
    from penstock.supervisor.child import Child
    from penstock.supervisor.service import Supervisor

#: Seconds between two looks.
_EVERY: Final = 1.0
#: Records and partitions that are named in the log.
_NAMED: Final = 20
#: The label of the metric.
MEMORY: Final = "memory"


class Recycling:
    """Over one supervisor. ``step`` on its loop; the rest is read under its lock."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._recycler: Recycler | None = None
        self._due = 0.0
        #: Workers replaced on purpose, by why.
        self.counts: Counter[str] = Counter()
        #: The last look at the cgroup, and at each process by its id.
        self.reading: Reading | None = None
        self.processes: dict[int, ProcessMemory] = {}

    def opened(self) -> None:
        """The settings are known: warn if the limit cannot be enough."""
        sup = self._sup
        assert sup.settings is not None
        self._recycler = Recycler(sup.settings.memory_high, sup.settings.memory_interval)
        reading = sup.host.memory()
        bound = bound_of(sup.settings, subscriptions=len(sup.subscriptions), handlers=0)
        short = shortfall(
            bound, reading.limit if reading is not None else None, sup.settings.memory_high
        )
        if short is not None:
            sup.log.warning("the memory limit is too low for what may be buffered", reason=short)

    def step(self, now: float) -> None:
        """Look, if it is time; replace a worker if that is what has to be done."""
        if self._recycler is None or now < self._due:
            return
        self._due = now + _EVERY
        sup = self._sup
        reading = sup.host.memory()
        if reading is None:
            return
        workers = sup.slots.workers()
        found = {child.pid: sup.host.weigh(child.pid) for child in workers}
        with sup.lock:
            self.reading = reading
            self.processes = {pid: held for pid, held in found.items() if held is not None}
        if sup.replacing.busy or sup.lifecycle.state not in (State.RUNNING, State.QUIET):
            return
        if not self._recycler.reached(reading):
            return
        weights = [
            Weight(child.index, held.private, now - child.spawned_at)
            for child in workers
            if (held := self.processes.get(child.pid)) is not None
        ]
        match self._recycler.decide(weights, now):
            case Recycle(worker):
                self._recycle(worker, reading, now)
            case Futile(why):
                sup.log.warning(
                    "memory runs out, and replacing a worker would not help: raise the limit",
                    reason=why,
                    working_set=reading.working_set,
                    limit=reading.limit,
                )
            case None:
                pass

    def _recycle(self, worker: Weight, reading: Reading, now: float) -> None:
        sup = self._sup
        child = sup.slots.worker(worker.index)
        # No room for two: the old one goes before the new one comes.
        if child is None or sup.replace(worker.index, MEMORY, room=False) is None:
            return
        assert self._recycler is not None
        self._recycler.begun(now)
        with sup.lock:
            self.counts[MEMORY] += 1
        self._tell(child, worker, reading, now)

    def _tell(self, child: Child, worker: Weight, reading: Reading, now: float) -> None:
        held = self.processes[child.pid]
        partitions = [f"{t}[{n}]" for t, parts in child.facts.assignment.items() for n in parts]
        self._sup.log.warning(
            "replacing the largest worker before memory runs out",
            worker=worker.index,
            pid=child.pid,
            resident=held.resident,
            private=held.private,
            age_seconds=round(worker.age, 1),
            working_set=reading.working_set,
            limit=reading.limit,
            high=self._sup.settings.memory_high if self._sup.settings else None,
            in_flight=[item.place for item in child.in_flight(now)[:_NAMED]],
            partitions=partitions[:_NAMED],
            partitions_in_all=len(partitions),
        )
