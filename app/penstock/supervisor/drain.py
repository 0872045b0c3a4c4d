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
from penstock.supervisor.seats import Seats

if TYPE_CHECKING:
    from penstock.supervisor.child import Child
    from penstock.supervisor.service import Supervisor

_DEFAULT_BUDGET: Final = 25.0
_FORCED: Final = "forced by a second SIGINT"
_LATE: Final = "the drain deadline passed"


class Drain:
    """The drain of a service: not begun, under way or over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self.budget: Budget | None = None
        #: From the request until the last process had ended, in seconds.
        self.seconds: float | None = None
        #: What was abandoned.
        self.stuck: list[InFlight] = []
        self._seats = Seats()
        #: Slots that a process was started for when nobody was left to give their seat up.
        self._sent: set[int] = set()

    def step(self, now: float) -> None:
        """Begin, or go on."""
        if self.budget is None:
            self._begin(now)
        self._fill_held_seats(now)
        self._tell(now)
        self._keep_deadline(now)
        if self.seconds is None and not self._sup.slots.everyone():
            self.seconds = now - self._sup.asked_at

    def ended(self, child: Child) -> None:
        """A process ended, and it was judged."""
        assert child.end is not None
        self.stuck.extend(child.end.stuck)
        self._seats.ended(child)

    def seats_left(self) -> list[int]:
        """Slots that nobody is in, with a seat that is to be given up and may still be held.

        An exit that is a failure promises nothing of them: most likely the service comes back.
        """
        sup = self._sup
        if sup.lifecycle.failure is not None or not self._leaves():
            return []
        slots = range(sup.places or 1)  # before the first hello there is one at least
        return [n for n in self._seats.held(slots) if sup.slots.worker(n) is None]

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
                leaves = self._gives_up_seat(child)
                if child is not slot[0] and leaves:
                    continue  # while the worker before it may still need the seat
                seat = Seat.LEAVE if leaves else self._seat_anyway()
                if child.discarded or child.killed:
                    continue
                if child.order != (restart, seat):
                    child.drain(restart=restart, seat=seat, seconds=self.budget.left(now))
                if child.hello is None and not leaves:
                    child.discard()  # it has nothing to finish

    def _gives_up_seat(self, child: Child) -> bool:
        """Whether a seat in the group would stay behind, and stand still, without this one."""
        return self._leaves() and self._seats.is_held(child.index)

    def _leaves(self) -> bool:
        """Whether seats that are held are to be given up, as far as is known by now."""
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
        """Before the first hello the code may still say so; until then nobody has left."""
        settings = self._sup.settings
        return settings is None or settings.instance_id is not None

    def _fill_held_seats(self, now: float) -> None:
        """Whoever had the seat is gone and kept it: one more process gives it up."""
        for index in self.seats_left():
            why = self._send_to_leave(index, now)
            if why is not None:
                told = f"worker {index} has not {self._errand()}: {why}"
                waits = "its partitions may wait for PENSTOCK_SESSION_TIMEOUT"
                self._sup.fail(Exit.FORCED, f"{told}; {waits}")
                return

    def _send_to_leave(self, index: int, now: float) -> str | None:
        """Start it; returns why that cannot be."""
        assert self.budget is not None
        if self._sup.lifecycle.forced:
            return _FORCED
        if now >= self.budget.over_at:
            return _LATE
        if index in self._sent:
            return "it said that it kept it"
        self._sent.add(index)
        try:
            child = self._sup.spawn(index, to_leave=True)
        except OSError as error:
            return f"no process could be started: {error}"
        self._sup.log.info("giving a seat up that was kept", worker=index, pid=child.pid)
        return None

    # -- the deadline ------------------------------------------------------------------

    def _keep_deadline(self, now: float) -> None:
        """Ask for stacks when a worker cannot help itself, then end it."""
        assert self.budget is not None
        everyone = self._sup.slots.everyone()
        if self._sup.lifecycle.forced:
            why = _FORCED
        elif now >= self.budget.over_at:
            why = _LATE
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
            names = ", ".join(item.place for item in held)
            for item in held:
                self._sup.log.error("blocked the drain", **item.to_json())
            what = f"{names or 'no record'} in flight in worker {child.index}"
            self._sup.fail(Exit.FORCED, f"{why} with {what}")
        else:
            self._sup.fail(Exit.FORCED, f"{why} before worker {child.index} had {self._errand()}")
        child.kill()

    def _errand(self) -> str:
        if self._sup.settings is None and not os.environ.get("PENSTOCK_INSTANCE_ID"):
            return (
                "imported the application, which says whether there is a seat in the group to give "
                "up (PENSTOCK_INSTANCE_ID)"
            )
        return "come up to give up its seat in the group"


def drain_hint() -> float:
    """The budget when the settings are not known, in seconds."""
    try:
        seconds = float(os.environ.get("PENSTOCK_DRAIN_TIMEOUT") or _DEFAULT_BUDGET)
    except ValueError:
        return _DEFAULT_BUDGET
    return seconds if math.isfinite(seconds) and seconds > 0 else _DEFAULT_BUDGET
