"""One worker process, seen from the supervisor: its pid, channel, board and last words."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

from penstock.channel import Message
from penstock.record import printable
from penstock.settings import Settings, from_wire
from penstock.supervisor.exit_record import InFlight
from penstock.supervisor.health import WorkerHealth
from penstock.supervisor.spawn import SLOTS, Spawned
from penstock.telemetry.tally import Tally


@dataclass(frozen=True, slots=True)
class Reading:
    """A subscription, for people: ``topics`` are names, or the pattern between slashes."""

    name: str
    group: str
    topics: tuple[str, ...]
    pattern: bool


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker knows once it has imported the application."""

    settings: Settings
    concurrency: int
    #: All of the application's; the worker's own is the one at its index, modulo their number.
    subscriptions: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class LastWords:
    """How a worker says it ended."""

    code: int
    clean: bool
    reason: str
    stuck: tuple[InFlight, ...] = ()


class Child:
    """A worker process. Spawned at once; consumes only once told to ``start``."""

    def __init__(self, spawned: Spawned) -> None:
        self.index = spawned.index
        self.spawned_at = spawned.spawned_at
        self.board = spawned.board
        self.stacks = spawned.stacks
        self.channel = spawned.channel
        self._popen = spawned.popen
        self.pid = self._popen.pid
        self.mark = spawned.mark
        self.hello: Hello | None = None
        self.last_words: LastWords | None = None
        self.fatal: LastWords | None = None
        self.started = False
        self.draining = False
        #: Ended by us before it had anything to lose; its code says nothing.
        self.discarded = False
        #: Ended by us at a deadline.
        self.killed = False
        self.gone = False
        self.facts: dict[str, Any] = {}
        self.tally = Tally()
        self.ever_joined = False

    # -- telling it --------------------------------------------------------------------

    def start(self) -> None:
        """Let it consume."""
        self.started = True
        self.channel.send("start")

    def drain(self, *, restart: bool, seat: str, seconds: float) -> None:
        """Let it finish and go; a worker that has not said hello has nothing to finish."""
        self.draining = True
        if self.hello is None:
            self.discard()
        else:
            self.channel.send("drain", restart=restart, seat=seat, seconds=seconds)

    def discard(self) -> None:
        """End a worker that never consumed."""
        self.discarded = True
        self.signal(signal.SIGKILL)

    def kill(self) -> None:
        """End a worker that did not end by itself."""
        self.killed = True
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still ours to signal."""
        if self._popen.returncode is None:
            os.kill(self.pid, number)

    # -- hearing from it ---------------------------------------------------------------

    def take(self, message: Message) -> str:
        """Take a message in; returns its kind."""
        kind = str(message.get("t"))
        match kind:
            case "hello":
                self.hello = Hello(
                    settings=from_wire(message["settings"]),
                    concurrency=int(message["concurrency"]),
                    subscriptions=tuple(
                        Reading(s["name"], s["group"], tuple(s["topics"]), bool(s["pattern"]))
                        for s in message["subscriptions"]
                    ),
                )
                self.board.slots = min(SLOTS, self.hello.concurrency)
            case "status":
                self.tally = Tally.from_json(message.pop("tally"))
                self.facts = message
                self.ever_joined = self.ever_joined or bool(message.get("joined"))
            case "drained":
                self.last_words = LastWords(
                    code=int(message["code"]),
                    clean=bool(message["clean"]),
                    reason=str(message["reason"]),
                    stuck=tuple(InFlight.from_json(item) for item in message["stuck"]),
                )
            case "fatal":
                self.fatal = LastWords(
                    int(message["code"]), clean=False, reason=str(message["reason"])
                )
        return kind

    def reaped(self, code: int) -> None:
        """It is gone; ``code`` as ``os.waitstatus_to_exitcode`` gives it."""
        self.gone = True
        self._popen.returncode = code  # or subprocess would wait for it again

    def release(self) -> None:
        """Give its memory and descriptors back, once nobody reads them any more."""
        self.channel.close()
        self.board.close()
        os.close(self.stacks)

    # -- looking at it -----------------------------------------------------------------

    @property
    def reading(self) -> Reading | None:
        """The worker's own subscription, once it has said hello."""
        if self.hello is None:
            return None
        return self.hello.subscriptions[self.index % len(self.hello.subscriptions)]

    @property
    def joined(self) -> bool:
        """Whether it is a member of its group, as far as it last said."""
        return bool(self.facts.get("joined"))

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
        return [
            InFlight(
                w.topic, w.partition, w.offset, printable(w.key), max(0.0, now - w.since), stack
            )
            for w in self.board.working()
        ]

    def stacks_size(self) -> int:
        """How much its fault handler has written so far."""
        return os.fstat(self.stacks).st_size

    def stacks_since(self, size: int) -> str:
        """What its fault handler wrote after ``size``."""
        return os.pread(self.stacks, 1 << 20, size).decode(errors="replace")
