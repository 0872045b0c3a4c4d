"""A worker process: one group member, from its start to its exit.

    load the app → hello → (start) → connect → consume → drain → report → exit

The main thread polls Kafka. The ``control`` thread listens to the supervisor, reports once a
second, and ends the process if the main thread cannot. Handler threads work
(:mod:`penstock.worker.dispatch`). The client has a thread of its own for I/O.
"""

from __future__ import annotations

import gc
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from penstock import board_file, stacks
from penstock.board import Board
from penstock.budget import Budget
from penstock.channel import Channel, Message
from penstock.deaths import Toll
from penstock.error_text import said, traceback_of
from penstock.errors import PenstockError, SidecarMissing
from penstock.exits import Exit
from penstock.kafka.port import Connect, GiveUp
from penstock.letters import Letter
from penstock.plan import Plan
from penstock.policy import Then
from penstock.seat import Seat
from penstock.steps import Steps
from penstock.telemetry.tally import Tally
from penstock.wake import WakePipe
from penstock.watched import watched
from penstock.worker.connect import Connector
from penstock.worker.dispatch import Dispatcher
from penstock.worker.leaving import abandon
from penstock.worker.loop import Ending, PollLoop

if TYPE_CHECKING:
    from penstock.kafka.dead_letters import DeadLetters

log = structlog.get_logger("penstock.worker")

_STATUS_INTERVAL = 1.0
#: Seconds for giving up a seat before there is a client: without a broker it cannot be done.
_GIVE_UP = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """The supervisor's word to drain (or the loss of it)."""

    restart: bool
    seat: Seat
    budget: Budget
    orphaned: bool = False

    def outranked_by(self, later: Order) -> Order:
        """A stop outranks a restart, and leaving outranks staying; the deadline stays."""
        leaves = Seat.LEAVE in (self.seat, later.seat)
        return replace(
            self,
            restart=self.restart and later.restart,
            seat=Seat.LEAVE if leaves else Seat.KEEP,
        )


class Worker:
    """The process. ``run`` returns the exit code."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        channel: Channel,
        connect: Connect,
        steps: Steps,
        give_up_seat: GiveUp | None = None,
    ) -> None:
        """``give_up_seat``: a static member's, for when it has to leave before it connected."""
        self._give_up_seat = give_up_seat
        self._steps = steps
        self._plan = plan
        self._board = board
        self._channel = channel
        self._tally = Tally()
        self._letters: DeadLetters | None = None
        self._dispatcher = Dispatcher(plan, board, self._tally, self._post)
        self._connector = Connector(connect, self._dispatcher)
        self._loop: PollLoop | None = None
        self._dispatcher.on_merged = self._tell_merged
        self._order: Order | None = None
        #: What became of the seat: given up, or kept for whoever comes back.
        self._closed = Seat.KEEP
        self._wake = threading.Event()
        self._started = threading.Event()
        self._finished = threading.Event()
        self._facts: dict[str, Any] = {"state": "connecting", "joined": False}
        self._turned = False
        self._control_wake = WakePipe()
        self._control = threading.Thread(
            target=watched(self._listen, self._finished.is_set, self._thread_ended),
            name="control",
            daemon=True,
        )

    # -- the main thread ---------------------------------------------------------------

    def run(self) -> int:
        """Live, from the first connection until the exit code is earned, or not.

        The connection does not wait for the word to start: it joins no group yet, and a
        replacement that is connected already shortens the gap of a reload.
        """
        self._control.start()
        try:
            return self._live()
        except BaseException as error:  # a fault of ours, or no more threads: say so, and end
            log.critical("a fault of Penstock's", exception=traceback_of(error))
            return self._gave_up(PenstockError(f"an unexpected error: {said(error)}"))

    def _live(self) -> int:
        failure: PenstockError | None = self._wait_for_sidecars()
        engine = None
        if failure is None:
            engine = self._connector.connect(self._wake, self._leaving)
            self._steps.mark("connect")
            failure = self._connector.failure or self._fatal()
        if engine is None:
            if failure is not None:
                return self._gave_up(failure)
            assert self._order is not None
            self._closed = Seat.KEEP  # it may be one that the process before this one kept
            return self._leave(self._order, self._seated(Ending.nothing_left(self._order.restart)))

        loop = self._loop = PollLoop(
            self._plan,
            engine,
            self._dispatcher,
            self._board,
            self._tally,
            self._report,
            self._steps,
            self._warnings,
        )
        self._open_letters()
        self._dispatcher.on_settled = engine.wake
        # Before the first record: it may be the one that kills.
        self._dispatcher.on_assigned = lambda: self._board.member(*engine.member())
        self._dispatcher.start()
        self._started.wait()
        self._steps.mark("wait")
        # Records in the buffer make the collector run often; what was imported (some hundred
        # thousand objects) need not be looked at each time.
        gc.freeze()
        fatal = loop.consume(self._leaving) or self._fatal()
        if fatal is not None:
            log.error("ending", reason=str(fatal))
            self._channel.send("fatal", code=fatal.exit_code, reason=str(fatal))
        if self._order is None:  # nobody asked: our own budget, which the control thread keeps
            seconds = self._plan.settings.drain_timeout
            self._order = Order(
                restart=False, seat=Seat.LEAVE, budget=Budget.of(seconds, now=time.monotonic())
            )
        order = self._order
        ending = loop.drain(order.budget, order.seat, restart=order.restart, fatal=fatal)
        if self._letters is not None and not ending.stuck:
            self._letters.close(max(0.1, order.budget.worker_left(time.monotonic()) / 2))
        self._closed = loop.closed or Seat.LEAVE
        return self._leave(order, self._seated(ending))

    def _seated(self, ending: Ending) -> Ending:
        """Give up a seat that was kept so far, if that is what is asked by now.

        The client was closed for a restart, and then a stop came; or there never was a client.
        """
        order = self._order
        assert order is not None
        give_up = self._give_up_seat
        if not ending.clean or order.seat is self._closed or self._closed is Seat.LEAVE:
            return ending
        if give_up is not None:
            held = give_up(min(order.budget.commit_left(time.monotonic()), _GIVE_UP))
            if held is not None:
                return Ending.seated(held)
        self._closed = Seat.LEAVE
        return Ending.nothing_left(order.restart)

    def _gave_up(self, failure: PenstockError) -> int:
        """Say why, and go without a drain."""
        self._finished.set()
        self._channel.send("fatal", code=failure.exit_code, reason=str(failure))
        return int(failure.exit_code)

    def _fatal(self) -> PenstockError | None:
        why = self._dispatcher.fatal
        return None if why is None else PenstockError(why)

    def _thread_ended(self, name: str, error: BaseException | None) -> None:
        """A thread ended that should live; on that thread. The worker has to end."""
        self._dispatcher.ended(name, error)
        self._wake.set()
        self._started.set()

    # -- dead letters ------------------------------------------------------------------

    def _open_letters(self) -> None:
        """Subscriptions without a dead-letter topic have no producer."""
        then = self._plan.policy.then
        if then.then is Then.DEAD_LETTER:
            from penstock.kafka.dead_letters import DeadLetters  # noqa: PLC0415 (a producer)

            self._letters = DeadLetters(self._plan.settings, (then.topic,), self._thread_ended)
            self._letters.start()

    def _post(self, letter: Letter, done: Callable[[Exception | None], None]) -> None:
        assert self._letters is not None
        self._letters.post(letter, done)

    def _warnings(self) -> list[str]:
        if self._letters is None:
            return []
        missing, refused = self._letters.missing(), self._letters.refused()
        told = dict.fromkeys(missing, "does not exist")
        told |= dict.fromkeys(refused, "may not be written to")
        return [
            f"dead-letter topic {topic!r} {what}: records that are given up on wait for it"
            for topic, what in sorted(told.items())
        ]

    def _tell_merged(self, ids: list[str]) -> None:
        self._channel.send("merged", ids=ids)

    # -- leaving -----------------------------------------------------------------------

    def _leaving(self) -> bool:
        return self._order is not None or self._dispatcher.fatal is not None

    def _wait_for_sidecars(self) -> SidecarMissing | None:
        """Nothing reaches Kafka before the sidecars are up; returns which one is not."""
        settings = self._plan.settings
        if settings.wait_urls:
            from penstock.worker.sidecars import wait_for  # noqa: PLC0415 (http.client, else unused)

            self._report({"state": "waiting", "joined": False})
            try:
                wait_for(settings.wait_urls, settings.wait_timeout, self._wake, self._leaving)
            except SidecarMissing as missing:
                return missing
            self._report({"state": "connecting", "joined": False})
            self._steps.mark("sidecars")
        return None

    def _leave(self, order: Order, ending: Ending) -> int:
        """Tell how it ended and go; the last thing a worker does."""
        self._finished.set()
        code = Exit.CRASHED if order.orphaned and ending.code in (0, 4) else ending.code
        self._channel.send("status", **self._facts, tally=self._tally.to_json())
        self._channel.send(
            "drained",
            code=int(code),
            clean=ending.clean,
            reason=ending.reason,
            stuck=[item.to_json() for item in ending.stuck],
            seat=self._closed,
        )
        if ending.stuck:
            # Python would wait for the handler that is stuck. What could be saved is saved.
            abandon(code)
        self._control_wake.wake()
        self._control.join(1.0)
        self._channel.close()
        return int(code)

    def _report(self, facts: dict[str, Any]) -> None:
        """Remember what the poll loop sees; send it at once when something turned."""
        turned = any(
            facts.get(key) != self._facts.get(key)
            for key in ("state", "joined", "assignment", "warnings")
        )
        self._facts = facts
        if turned:
            self._turned = True
            self._control_wake.wake()

    # -- the control thread ------------------------------------------------------------

    def _listen(self) -> None:
        """Take commands, report at each turn and each second, watch the deadline."""
        due = time.monotonic()
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._control_wake, select.POLLIN)
        while not self._finished.is_set():
            now = time.monotonic()
            if now >= due or self._turned:
                self._turned = False
                self._send_status()
                due = now + _STATUS_INTERVAL
            self._watch_deadline(now)
            poller.poll(max(0.0, min(due - now, 0.25)) * 1000)
            self._control_wake.drain()
            if self._channel.ended:
                continue
            for message in self._channel.receive():
                self._obey(message)
            if self._channel.ended:
                poller.unregister(self._channel)
                self._orphaned()

    def _obey(self, message: Message) -> None:
        match message.get("t"):
            case "start":
                self._start(message)
            case "merged":
                self._dispatcher.forget_tolls([str(each) for each in message["ids"]])
            case "drain":
                self._take_order(
                    Order(
                        restart=bool(message["restart"]),
                        seat=Seat(message["seat"]),
                        budget=Budget.of(float(message["seconds"]), now=time.monotonic()),
                    )
                )
            case "quiet" | "resume":
                self._dispatcher.quiet() if message["t"] == "quiet" else self._dispatcher.resume()
            case "dump":
                for name, stack in stacks.of_all().items():
                    log.warning("stack", thread=name, stack=stack)
                self._channel.send("dumped")
            case other:
                log.error("unknown command", command=other)

    def _start(self, message: Message) -> None:
        """Consume; before that, the board moves to where it outlives this process."""
        if (path := message.get("board")) is not None:
            try:
                board_file.move(self._board, Path(path))
            except (OSError, ValueError) as error:
                log.warning("the board stays in memory", error=str(error))
                self._channel.send("board", kept=False)
        for each in message.get("tolls", ()):
            try:
                self._dispatcher.tolls([Toll.from_json(each)])
            except ValueError as error:  # of a supervisor of another version
                log.warning("a death is not counted", error=str(error))
        self._started.set()

    def _take_order(self, order: Order) -> None:
        self._board.draining()
        if self._order is None:
            self._begin(order)
            return
        new = self._order.outranked_by(order)
        if new != self._order:
            self._begin(new)
            if self._loop is not None:
                self._loop.reseat(new.seat, restart=new.restart)

    def _begin(self, order: Order) -> None:
        """Drain, from this moment on: the poll loop may be held by a rebalance for long."""
        self._order = order
        self._dispatcher.drain(order.budget.handlers_by)
        self._wake.set()
        self._started.set()

    def _orphaned(self) -> None:
        """The supervisor is gone: nobody would count, probe or stop this process any more."""
        if self._finished.is_set() or (self._order is not None and self._order.orphaned):
            return
        self._board.draining()
        log.warning("lost the supervisor: draining and leaving")
        seconds = self._plan.settings.drain_timeout
        seat = Seat.KEEP if self._plan.settings.instance_id else Seat.LEAVE
        budget = Budget.of(seconds, now=time.monotonic())
        self._begin(Order(restart=True, seat=seat, budget=budget, orphaned=True))

    def _watch_deadline(self, now: float) -> None:
        """The main thread is held: by a commit, a close, or a rebalance that does not end."""
        order, loop = self._order, self._loop
        if order is None or now < order.budget.worker_by:
            return
        stuck = () if loop is None else loop.stuck or loop.stuck_now()
        doing = "connecting" if loop is None else loop.doing
        log.error("the drain deadline passed before the worker could close; leaving", doing=doing)
        reason = f"the drain deadline passed while {doing}"
        if doing == "polling":
            reason += ": the client was held, most likely by a rebalance"
        ending = Ending.blocked(stuck) if stuck else Ending(Exit.FORCED, clean=False, reason=reason)
        if loop is not None and loop.so_far is not None and not loop.so_far.clean:
            ending = loop.so_far  # the close alone would not have mattered
        self._channel.send(
            "drained",
            code=int(ending.code),
            clean=False,
            stuck=[item.to_json() for item in stuck],
            reason=ending.reason,
        )
        abandon(ending.code)

    def _send_status(self) -> None:
        self._channel.send("status", **self._facts, tally=self._tally.to_json())
