"""The service's way out: tell everyone, keep the deadline, end what does not end.

It looks at states, not at events: at each turn every process in the table is told what it
ought to know and does not know yet, whoever it is and whenever it came.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

from penstock.budget import Budget
from penstock.exits import Exit
from penstock.lifecycle import Kind
from penstock.seat import Seat, seat_after
from penstock.supervisor.exit_record import InFlight

if TYPE_CHECKING:
    from penstock.supervisor.child import Child
    from penstock.supervisor.service import Supervisor

_DEFAULT_BUDGET: Final = 25.0


class Drain:
    """The drain of a service: not begun, under way or over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self.budget: Budget | None = None
        #: From the request until the last process had ended, in seconds.
        self.seconds: float | None = None
        #: What was abandoned.
        self.stuck: list[InFlight] = []
        #: Slots whose seat was given up by a worker that ended clean.
        self._left: set[int] = set()
        #: Slots whose worker ended clean and kept the seat, and nobody has taken it since.
        self._kept: set[int] = set()

    def step(self, now: float) -> None:
        """Begin, or go on."""
        if self.budget is None:
            self._begin(now)
        self._give_up_what_was_kept()
        self._tell(now)
        self._keep_deadline(now)
        if self.seconds is None and not self._sup.slots.everyone():
            self.seconds = now - self._sup.asked_at

    def ended(self, child: Child) -> None:
        """A process ended, and it was judged."""
        assert child.end is not None
        self.stuck.extend(child.end.stuck)
        seat, index = child.left_seat, child.index
        if seat is Seat.LEAVE:
            self._left.add(index)
        if seat is Seat.KEEP and index not in self._left and not self._sup.slots.before(child):
            self._kept.add(index)
        elif seat is Seat.LEAVE or child.consumed:
            self._kept.discard(index)

    def _begin(self, now: float) -> None:
        sup = self._sup
        seconds = sup.settings.drain_timeout if sup.settings else drain_hint()
        with sup.lock:
            # Counted from the request, not from when the loop got to it.
            self.budget = Budget.of(seconds, now=min(now, sup.asked_at))
        sup.log.info("draining", budget=seconds, workers=len(sup.slots.everyone()))
        sup.replacing.interrupt(f"the service is ending: {sup.lifecycle.reason}")

    # -- telling -----------------------------------------------------------------------

    def _tell(self, now: float) -> None:
        """A later stop outranks a restart: the seat is given up after all."""
        assert self.budget is not None
        life = self._sup.lifecycle
        restart = life.intent is None or life.intent.kind is Kind.RESTART
        for slot in self._sup.slots:
            for child in slot:
                if child is not slot[0] and self._gives_up_seat(child):
                    continue  # while the worker before it may still need the seat
                seat = Seat.LEAVE if self._gives_up_seat(child) else self._seat_anyway()
                if child.discarded or child.killed or child.order == (restart, seat):
                    continue
                child.drain(restart=restart, seat=seat, seconds=self.budget.left(now))
                if child.hello is None and not self._gives_up_seat(child):
                    child.discard()  # it has nothing to finish

    @property
    def owes_a_seat(self) -> bool:
        """Whether a stop came after a restart that some workers had obeyed already."""
        return bool(self._kept) and self._no_seat_is_to_be_kept()

    def _give_up_what_was_kept(self) -> None:
        """A worker comes up for each seat that was kept for nothing.

        It gives it up as one does that is stopped before it has connected (:meth:`_tell`).
        """
        for index in sorted(self._kept) if self.owes_a_seat else ():
            self._kept.discard(index)
            if self._sup.slots.worker(index) is None:
                try:
                    self._sup.spawn(index)
                except OSError as error:
                    what = f"the seat of worker {index} in the group could not be given up"
                    self._sup.fail(Exit.FORCED, f"{what}: no process could be started: {error}")

    def _gives_up_seat(self, child: Child) -> bool:
        """Whether a seat in the group would stay behind, and stand still, without this one."""
        return self._no_seat_is_to_be_kept() and child.index not in self._left

    def _no_seat_is_to_be_kept(self) -> bool:
        """Whether static members have to leave the group."""
        life, settings = self._sup.lifecycle, self._sup.settings
        seat = seat_after(
            static=self._static(),
            restart=life.intent is None or life.intent.kind is Kind.RESTART,
            held=life.held,
            stable_identity=settings is not None and settings.stable_identity,
        )
        return self._static() and seat is Seat.LEAVE

    def _seat_anyway(self) -> Seat:
        return Seat.KEEP if self._static() else Seat.LEAVE

    def _static(self) -> bool:
        settings = self._sup.settings
        if settings is None:  # what the code says is not known before the first hello
            return bool(os.environ.get("PENSTOCK_INSTANCE_ID"))
        return settings.instance_id is not None

    # -- the deadline ------------------------------------------------------------------

    def _keep_deadline(self, now: float) -> None:
        """Ask for stacks when a worker cannot help itself, then end it."""
        assert self.budget is not None
        everyone = self._sup.slots.everyone()
        if self._sup.lifecycle.forced:
            why = "forced by a second SIGINT"
        elif now >= self.budget.over_at:
            why = "the drain deadline passed"
        else:
            if now >= self.budget.worker_by:
                self._sup.dumps.force(everyone)
            return
        for child in everyone:
            self.end_by_force(child, why, now)

    def end_by_force(self, child: Child, why: str, now: float) -> None:
        """Its time is up. Names what its handlers hold."""
        if child.killed or child.discarded:
            return
        if not child.consumed and not (self.budget and self._gives_up_seat(child)):
            child.discard()
            return
        words = child.last_words
        if words is not None and words.clean:
            self._sup.log.warning("a drained worker did not exit; ending it", worker=child.index)
        elif child.consumed:
            held = child.in_flight(now, stack=self._sup.dumps.stack_of(child))
            self.stuck.extend(held)
            names = ", ".join(f"{h.topic}[{h.partition}]@{h.offset}" for h in held)
            for item in held:
                self._sup.log.error("blocked the drain", **item.to_json())
            what = f"{names or 'no record'} in flight in worker {child.index}"
            self._sup.fail(Exit.FORCED, f"{why} with {what}")
        else:
            what = f"worker {child.index} had come up to give up its seat in the group"
            self._sup.fail(Exit.FORCED, f"{why} before {what}")
        child.kill()


def drain_hint() -> float:
    """The budget when the settings are not known, in seconds."""
    try:
        seconds = float(os.environ.get("PENSTOCK_DRAIN_TIMEOUT") or _DEFAULT_BUDGET)
    except ValueError:
        return _DEFAULT_BUDGET
    return seconds if math.isfinite(seconds) and seconds > 0 else _DEFAULT_BUDGET
