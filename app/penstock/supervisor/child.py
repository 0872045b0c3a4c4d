"""One worker process, seen from the supervisor: what it was told, and what it said."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from penstock.board import Board
from penstock.channel import Channel, Message
from penstock.exits import Exit
from penstock.seat import Seat
from penstock.supervisor import messages
from penstock.supervisor.boards import in_flight
from penstock.supervisor.exit_record import InFlight
from penstock.supervisor.health import WorkerHealth
from penstock.supervisor.messages import Facts, Hello, LastWords, Reading
from penstock.supervisor.spawn import SLOTS
from penstock.supervisor.verdict import End
from penstock.telemetry.tally import Tally


class Process(Protocol):
    """A process that was started, and what it shares with us (``spawn.Spawned``)."""

    index: int
    spawned_at: float
    board: Board
    stacks: int
    channel: Channel
    mark: str

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal, unless it was reaped."""
        ...

    def reaped(self, code: int) -> None:
        """It is gone; ``code`` as ``os.waitstatus_to_exitcode`` gives it."""
        ...


class Child:
    """A worker process. Spawned at once; consumes only once told to ``start``."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.index = process.index
        self.spawned_at = process.spawned_at
        self.board = self._first_board = process.board
        self.stacks = process.stacks
        self.channel = process.channel
        self.pid = process.pid
        self.mark = process.mark
        self.hello: Hello | None = None
        #: Why it can never be told to start.
        self.unusable: str | None = None
        self.last_words: LastWords | None = None
        self.fatal: LastWords | None = None
        #: Told to start: from here on it has something to lose.
        self.consumed = False
        #: Started only to give up the seat of its slot.
        self.to_leave = False
        #: The order to drain that it was last given: ``(restart, seat)``.
        self.order: tuple[bool, Seat] | None = None
        #: Ended by us before it had anything to lose; its code says nothing.
        self.discarded = False
        #: Ended by us at a deadline.
        self.killed = False
        #: How it ended, once that is judged.
        self.end: End | None = None
        self.facts = Facts()
        self.tally = Tally()
        self.ever_joined = False
        #: Tolls that it has committed, until the supervisor takes them out.
        self.merged: list[str] = []
        #: The first thing it said that could not be read.
        self.garbled: str | None = None
        #: Whether that was logged.
        self.complained = False

    # -- telling it --------------------------------------------------------------------

    def start(self, told: Mapping[str, Any]) -> None:
        """Let it consume; ``told``: where its board goes, and what to know of earlier deaths."""
        self.consumed = True
        self.channel.send("start", **told)

    def take_board(self, board: Board) -> None:
        """Its board moves to a file; it will be told where."""
        self._first_board, self.board = self.board, board

    def drain(self, *, restart: bool, seat: Seat, seconds: float) -> None:
        """Let it finish and go, within ``seconds``."""
        self.order = restart, seat
        self.channel.send("drain", restart=restart, seat=seat, seconds=seconds)

    def discard(self) -> None:
        """End a worker that never consumed."""
        assert not self.consumed
        self.discarded = True
        self.signal(signal.SIGKILL)

    def kill(self) -> None:
        """End a worker that did not end by itself."""
        self.killed = True
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still ours to signal."""
        self._process.signal(number)

    # -- hearing from it ---------------------------------------------------------------

    def take(self, message: Message) -> str:
        """Take a message in; returns its kind. What cannot be read changes nothing."""
        kind = message.get("t")
        try:
            match kind:
                case "hello":
                    self._greeted(message)
                case "status":
                    self._reported(message)
                case "drained":
                    self._drained(message)
                case "fatal":
                    self.fatal = self.fatal or messages.read_fatal(message)
                case "board":  # it could not move
                    self.board, self._first_board = self._first_board, self.board
                case "merged":
                    self.merged += messages.read_ids(message)
                case "dumped":
                    pass
                case _:
                    self._not_understood(kind, "no kind of message")
        except ValueError as error:
            self._not_understood(kind, str(error))
        return str(kind)

    def _not_understood(self, kind: object, why: str) -> None:
        self.garbled = self.garbled or f"{str(kind)[:80]}: {why}"

    def _greeted(self, message: Message) -> None:
        if self.hello is not None or self.unusable is not None:
            raise ValueError("a second one")
        try:
            self.hello = messages.read_hello(message)
        except ValueError as error:
            self.unusable = (
                f"what it said of the application cannot be understood ({error}): if Penstock "
                "itself was upgraded, restart the service"
            )
            return
        self.board.slots = min(SLOTS, self.hello.concurrency)

    def _reported(self, message: Message) -> None:
        self.facts, wrong = messages.read_facts(message, self.facts)
        self.ever_joined = self.ever_joined or self.facts.joined
        self.tally = messages.read_tally(message)
        if wrong:
            raise ValueError("; ".join(wrong))

    def _drained(self, message: Message) -> None:
        """The worst that it ever said counts, and so does what cannot be read."""
        if self.last_words is not None and not self.last_words.clean:
            return
        try:
            self.last_words = messages.read_drained(message)
        except ValueError as error:
            self.last_words = LastWords(
                Exit.CRASHED, clean=False, reason=f"its last words could not be read ({error})"
            )
            raise
        if self.last_words.clean and not self.draining:
            self.last_words = LastWords(
                Exit.CRASHED, clean=False, reason="it drained without being asked to"
            )

    def reaped(self, code: int) -> None:
        """It is gone; ``code`` as ``os.waitstatus_to_exitcode`` gives it."""
        self._process.reaped(code)

    def release(self) -> None:
        """Give its memory and descriptors back, once nobody reads them any more."""
        self.channel.close()
        for board in {self.board, self._first_board}:
            board.close()
        os.close(self.stacks)

    # -- looking at it -----------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether it was told to drain."""
        return self.order is not None

    @property
    def gone(self) -> bool:
        """Whether it ended and was judged."""
        return self.end is not None

    @property
    def reading(self) -> Reading | None:
        """The worker's own subscription, once it has said hello."""
        if self.hello is None:
            return None
        return self.hello.subscriptions[self.index % len(self.hello.subscriptions)]

    @property
    def joined(self) -> bool:
        """Whether it is a member of its group, as far as it last said."""
        return self.facts.joined

    def health(self) -> WorkerHealth:
        """For the probes."""
        return WorkerHealth(
            index=self.index,
            joined=self.joined,
            polled_at=self.board.poll_at(),
            working=self.board.working(),
            excused=self.draining,
        )

    def in_flight(self, now: float, *, stack: str | None = None) -> list[InFlight]:
        """What its handlers hold, oldest first."""
        return [replace(item, stack=stack) for item in in_flight(self.board.working(), now)]

    def stacks_size(self) -> int:
        """How much its fault handler has written so far."""
        return os.fstat(self.stacks).st_size

    def stacks_since(self, size: int) -> str:
        """What its fault handler wrote after ``size``."""
        return os.pread(self.stacks, 1 << 20, size).decode(errors="replace")
