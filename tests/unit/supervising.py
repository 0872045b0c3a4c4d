"""A world for the real supervisor: processes, pipes and a clock that a test moves by hand.

The channels are real socket pairs, so bytes cross them as they do in a service. What a
process is told it finds in its ``inbox``; what it does, the test says.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from penstock.board import Board, Working
from penstock.cgroup import ProcessMemory, Reading
from penstock.channel import Channel, Message
from penstock.http.server import HttpServer
from penstock.lifecycle import State
from penstock.settings import Settings
from penstock.settings_wire import to_wire
from penstock.supervisor.child import Process
from penstock.supervisor.descendants import Leader
from penstock.supervisor.exit_record import ExitRecord
from penstock.supervisor.host import Host
from penstock.supervisor.journal import Journal
from penstock.supervisor.service import Supervisor
from penstock.supervisor.view import View
from penstock.telemetry.tally import Tally
from penstock.wake import WakePipe
from tests.unit.making import make_settings

SETTINGS: dict[str, Any] = {"drain_timeout": 20.0}


class FakeBoard:
    """What a process would have written into its board."""

    def __init__(self) -> None:
        self.slots = 0
        self.polled: float | None = None
        self.held: list[Working] = []
        self.closed = False

    def poll_at(self) -> float | None:
        assert not self.closed
        return self.polled

    def done_at(self) -> float | None:
        assert not self.closed
        return None

    def taken_at(self) -> float | None:
        assert not self.closed
        return None

    def working(self) -> list[Working]:
        assert not self.closed
        return self.held

    @property
    def is_alone(self) -> bool:
        assert not self.closed
        return False

    def joined_as(self) -> tuple[str, int] | None:
        assert not self.closed
        return None

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class FakeProcess:
    """A worker process: its end of the channel, and how it ended."""

    def __init__(self, host: FakeHost, index: int) -> None:
        self._host = host
        self.index = index
        self.pid = 100 + len(host.processes)
        self.mark = str(self.pid)
        self.spawned_at = host.now
        #: What the service was doing when it was started.
        self.born_while = host.sup.lifecycle.state if host.sup is not None else State.STARTING
        #: Whether what the application says was known by then.
        self.born_knowing = host.sup is not None and host.sup.settings is not None
        self.fake_board = FakeBoard()
        self.board = cast(Board, self.fake_board)
        self.stacks = os.open(os.devnull, os.O_RDONLY)
        self.channel, self._theirs = Channel.pair()
        self._theirs.setblocking(False)
        self._unread = b""
        self.inbox: list[Message] = []
        self.signals: list[int] = []
        #: As ``os.waitstatus_to_exitcode`` gives it, once it ended.
        self.code: int | None = None
        self.is_reaped = False

    # -- the supervisor's side ---------------------------------------------------------

    def signal(self, number: int) -> None:
        assert not self.is_reaped, "its id may be somebody else's by now"
        self.signals.append(number)
        if number == signal.SIGKILL and self.code is None:
            self.end(-signal.SIGKILL)

    def reaped(self, code: int) -> None:
        assert not self.is_reaped
        assert code == self.code
        self.is_reaped = True

    # -- the process's side ------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.code is None

    def told(self, kind: str) -> list[Message]:
        """The messages of this kind that it was sent so far."""
        return [message for message in self.read() if message["t"] == kind]

    def read(self) -> list[Message]:
        """Everything that it was sent so far (of one that ended: before that)."""
        with contextlib.suppress(OSError):
            while data := self._theirs.recv(1 << 16):
                self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        self.inbox += [json.loads(line) for line in lines if line]
        return self.inbox

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            self._theirs.send(data)

    def say(self, kind: str, **fields: Any) -> None:
        assert self.alive
        self.write(json.dumps({"t": kind, **fields}).encode() + b"\n")

    def hello(self, values: Mapping[str, Any] | None = None, subscriptions: int = 1) -> None:
        one = {"name": "bill", "group": "billing", "topics": ["orders"], "pattern": False}
        self.say(
            "hello",
            settings=to_wire(make_settings(**{**SETTINGS, **(values or {})})),
            concurrency=1,
            subscriptions=[one] * subscriptions,
        )

    def status(self, **facts: Any) -> None:
        self.fake_board.polled = self._host.now
        self.say(
            "status",
            **{"state": "running", "joined": True, "tally": Tally().to_json(), **facts},
        )

    def drained(
        self,
        *,
        clean: bool = True,
        code: int | None = None,
        reason: str = "",
        seat: str | None = None,
    ) -> int:
        """Its last words, by the order it was given; returns the code it ought to end with."""
        orders = self.told("drain")
        if code is None:
            code = 4 if orders[-1]["restart"] else 0
        if seat is None:
            seat = orders[-1]["seat"] if orders else "keep"
        self.say("drained", code=code, clean=clean, reason=reason, stuck=[], seat=seat)
        return code

    def end(self, code: int) -> None:
        """It is gone; its supervisor learns of it when it looks."""
        assert self.alive
        self.read()
        self.code = code
        self._theirs.close()
        self._host.ended.append((self.pid, code))

    def leave(self) -> None:
        """Drain clean, and go."""
        self.end(self.drained())

    def close(self) -> None:
        self._theirs.close()
        if not self.is_reaped:
            self.channel.close()
            os.close(self.stacks)


class FakeServer:
    """In place of a port."""

    port = 8080
    running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class _Selector(selectors.DefaultSelector):
    """Never waits: time passes when the test says so."""

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None
        assert timeout >= 0
        return super().select(0)


class FakeHost(Host):
    """Everything the supervisor needs of a machine."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.processes: list[FakeProcess] = []
        self.ended: list[tuple[int, int]] = []
        self.records: list[ExitRecord] = []
        self.server = FakeServer()
        #: What the memory cgroup says, and what each process holds.
        self.reading: Reading | None = None
        self.weights: dict[int, ProcessMemory] = {}
        #: Starting another process fails.
        self.full = False
        self.sup: Supervisor | None = None
        self._selector: selectors.BaseSelector | None = None

    def monotonic(self) -> float:
        return self.now

    def memory(self) -> Reading | None:
        return self.reading

    def weigh(self, pid: int) -> ProcessMemory | None:
        return self.weights.get(pid)

    def wall(self) -> float:
        return 1_700_000_000 + self.now

    def selector(self) -> selectors.BaseSelector:
        self._selector = _Selector()
        return self._selector

    def spawn(self, index: int, target: str) -> Process:
        if self.full:
            raise OSError("Resource temporarily unavailable")
        process = FakeProcess(self, index)
        self.processes.append(process)
        return process

    def reap(self, workers: Sequence[Leader]) -> tuple[int, int] | None:
        return self.ended.pop(0) if self.ended else None

    def journal(self, directory: Path, *, guarded: bool = False) -> Journal:
        journal = Journal(directory)
        journal._restore(b"", self.wall())  # in memory: it has no file
        written = journal.write_exit

        def write_exit(record: ExitRecord) -> None:
            self.records.append(record)
            written(record)

        journal.write_exit = write_exit  # type: ignore[method-assign]
        return journal

    def listen(self, view: View, settings: Settings) -> HttpServer:
        return cast(HttpServer, self.server)

    def close(self) -> None:
        for process in self.processes:
            process.close()
        if self._selector is not None:
            self._selector.close()


class World:
    """The real supervisor in a fake world. ``first`` workers were started already."""

    def __init__(self, first: int = 1) -> None:
        self.host = FakeHost()
        self._later = 0.0
        self.pipe = WakePipe()
        started = [self.host.spawn(index, "shop:app") for index in range(first)]
        self.sup = self.host.sup = Supervisor("shop:app", self.pipe, started, self.host)

    @property
    def processes(self) -> list[FakeProcess]:
        return self.host.processes

    def alive(self) -> list[FakeProcess]:
        return [process for process in self.processes if process.alive]

    def turn(self, times: int = 2) -> None:
        """Let the supervisor look around, until it has seen everything there is."""
        for _ in range(times):
            if not self.sup.over():
                # Time passes while it waits: what came meanwhile is read before it looks.
                self.host.now, self._later = self.host.now + self._later, 0.0
                self.sup.turn()

    def later(self, seconds: float) -> None:
        """Time passes, with the next turn."""
        self._later += seconds

    def pass_time(self, seconds: float) -> None:
        self.later(seconds)
        self.turn()

    def send(self, number: int) -> None:
        """A signal to the supervisor."""
        os.write(self.pipe.writer, bytes([number]))
        self.turn()

    def run_up(self, values: Mapping[str, Any] | None = None, subscriptions: int = 1) -> None:
        """Until the service runs: every worker there is has said hello and joined."""
        for _ in range(2):  # the first hello brings the others
            for process in self.alive():
                if not process.told("start"):
                    process.hello(values, subscriptions)
            self.turn()
        for process in self.alive():
            assert process.told("start")
            process.status()
        self.turn()
        assert self.sup.lifecycle.state == "running"

    def end(self) -> int:
        """The exit code of a service whose processes are all gone."""
        self.turn()
        assert self.sup.over(), [c.pid for c in self.sup.slots.everyone()]
        return self.sup.run()

    def ends_by_itself(self) -> int:
        """The exit code, when every process does as it was told."""
        for _ in range(4):
            for process in self.alive():
                if process.told("drain"):
                    process.leave()
            self.turn()
        return self.end()

    def ended_counts(self) -> Counter[tuple[str, str, bool]]:
        return self.sup.worker_exits

    def close(self) -> None:
        self.host.close()
        for descriptor in (self.pipe.fileno(), self.pipe.writer):
            os.close(descriptor)
