"""The life of a service, in call order: run → greet → open → serve → drain → finish.

The supervisor never touches Kafka and never runs a handler, so it can always answer a probe,
count a worker's death and keep a deadline. Everything happens on the main thread in one
loop over signals, worker channels and timers; HTTP runs beside it and only reads, or records
a request (:mod:`penstock.supervisor.view`).
"""

from __future__ import annotations

import os
import selectors
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

import penstock
from penstock import exits
from penstock.budget import Budget
from penstock.errors import ConfigError
from penstock.exits import Exit
from penstock.lifecycle import Kind, Lifecycle, State
from penstock.settings import Settings
from penstock.supervisor import dumps, signals
from penstock.supervisor.child import Child, Process
from penstock.supervisor.drain import Drain
from penstock.supervisor.exit_history import ExitHistory
from penstock.supervisor.health import WorkerHealth
from penstock.supervisor.host import Host
from penstock.supervisor.journal import Journal
from penstock.supervisor.last_record import LastRecord, log_exit, write_down
from penstock.supervisor.messages import Hello, Reading
from penstock.supervisor.post_mortem import PostMortem
from penstock.supervisor.quit import ask_sidecars
from penstock.supervisor.recycling import Recycling
from penstock.supervisor.replacement import Renewal, Replacement, Replacing
from penstock.supervisor.running import Running
from penstock.supervisor.slots import Slots
from penstock.supervisor.verdict import Blame, End, blame, failing, judge
from penstock.supervisor.view import View
from penstock.telemetry import logs
from penstock.telemetry.tally import Tally
from penstock.wake import WakePipe

if TYPE_CHECKING:
    from penstock.http.server import HttpServer

_TICK: Final = 0.25
_QUIT_PATIENCE: Final = 1.0


class Supervisor:
    """State shared between the main loop (which changes it) and HTTP (which reads it).

    ``lock`` guards it. It is held for memory only, never across I/O.
    """

    def __init__(
        self, target: str, pipe: WakePipe, first: Sequence[Process], host: Host | None = None
    ) -> None:
        """``pipe`` brings the signals; ``first`` are workers that were started already."""
        logs.configure(
            os.environ.get("PENSTOCK_LOG_FORMAT") or "json",
            os.environ.get("PENSTOCK_LOG_LEVEL") or "INFO",
            process="supervisor",
        )
        self.log = structlog.get_logger("penstock.supervisor")
        self.lock = threading.RLock()
        self.pipe = pipe
        self.host = host or Host()
        self.lifecycle = Lifecycle()
        self.began = self.host.monotonic()
        self.asked_at = self.began
        self.settings: Settings | None = None
        self.subscriptions: tuple[Reading, ...] = ()
        self.slots = Slots()
        self.replacing = Replacing(self)
        self.recycling = Recycling(self)
        self.running = Running(self)
        self.drain = Drain(self)
        self.dumps = dumps.Dumps(self.log)
        self.retired = Tally()
        self.worker_exits: Counter[tuple[str, str, bool]] = Counter()
        self.ever_started = False
        #: Why liveness fails: a worker ended without being asked to.
        self.gone: str | None = None
        self._target = target
        self._selector = self.host.selector()
        self._journal: Journal | None = None
        self._http: HttpServer | None = None
        self.view = View(self)
        self.post_mortem = PostMortem(self.host)
        self._last_record = LastRecord()
        self._selector.register(self.pipe, selectors.EVENT_READ)
        for process in first:
            self._admit(process)

    # -- run ---------------------------------------------------------------------------

    def run(self) -> int:
        """From the first worker to the exit code."""
        while not self._ended():
            self.turn()
        return self.finish()

    def _ended(self) -> bool:
        """Whether it is over, and from then on what is asked comes too late."""
        with self.lock:
            return self.over() and self.lifecycle.go(State.STOPPED)

    def turn(self) -> None:
        """Once around: take in what came, bury who ended, bring the rest in line."""
        self._wait()
        self._reap()
        self._step(self.host.monotonic())

    def _wait(self) -> None:
        """Wait for a signal, a message or the next deadline, and take in what came."""
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self.pipe:
                for number in self.pipe.drain():
                    self._signalled(number)
            else:
                self._hear(key.data)

    def _patience(self) -> float:
        now = self.host.monotonic()
        if self.budget is None:
            return _TICK
        ahead = [t - now for t in (self.budget.worker_by, self.budget.over_at) if t > now]
        return min([_TICK, *ahead])

    def _signalled(self, number: int) -> None:
        request = signals.REQUESTS.get(number)
        if request is None:
            return
        if request.kind is Kind.DUMP:
            self.dumps.ask(self.slots.everyone(), self.host.monotonic())
        else:
            self.view.ask(request)

    def _hear(self, child: Child) -> None:
        """Take in what a worker says; its last words come before its death is judged."""
        for message in child.channel.receive():
            with self.lock:
                kind = child.take(message)
            if kind == "hello":
                self._greeted(child)
            elif kind == "fatal":
                self._gave_up(child)
            elif kind == "merged":
                self._merged(child)
            elif kind == "dumped":
                self.dumps.answered(child)
        if not child.complained and (child.garbled or child.channel.garbled):
            child.complained = True
            self.log.warning(
                "a worker's message could not be read and was ignored, as others like it will be",
                worker=child.index,
                pid=child.pid,
                what=child.garbled or "not a line of JSON",
            )
        if child.channel.ended:
            self._unlisten(child)

    def _merged(self, child: Child) -> None:
        """The group's commits tell of some deaths now; the other workers must not add them."""
        ids, child.merged = child.merged, []
        self.post_mortem.merged(ids)
        for other in self.slots.everyone():
            if other is not child and other.consumed:
                other.channel.send("merged", ids=ids)

    def _unlisten(self, child: Child) -> None:
        if child.channel.fileno() in self._selector.get_map():
            self._selector.unregister(child.channel)

    # -- greet, open -------------------------------------------------------------------

    def spawn(self, index: int, *, to_leave: bool = False) -> Child:
        """Start a worker process; it waits until it is told to start consuming.

        ``to_leave``: it never will be. It gives up the seat of a slot that is empty for good.

        Raises:
            OSError: the machine has no room for another process.
        """
        assert to_leave is self.lifecycle.ending
        return self._admit(self.host.spawn(index, self._target), to_leave=to_leave)

    def _admit(self, process: Process, *, to_leave: bool = False) -> Child:
        child = Child(process)
        child.to_leave = to_leave
        with self.lock:
            self.slots.add(child)
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        return child

    def _greeted(self, child: Child) -> None:
        """A worker has imported the app; from the first one the settings are known."""
        if self.lifecycle.ending:  # nothing is opened any more, but whoever is to leave is known
            if self.settings is None and child.hello is not None:
                self._learn(child.hello)
            return
        if self.slots.before(child) is not None:
            return  # of a successor its replacement takes care
        if self.settings is not None and child.hello is not None:
            child.unusable = self.misfit(child.hello)
        if child.unusable is not None:
            self.fail(Exit.CRASHED, f"worker {child.index}: {child.unusable}", gone=True)
        elif self.settings is None:
            try:
                self._open(child)
            except ConfigError as error:
                self.log.error("bad configuration", reason=str(error))  # noqa: TRY400 (a sentence, not a trace)
                self.fail(Exit.CONFIG, str(error))

    def _learn(self, hello: Hello) -> None:
        with self.lock:
            self.settings = hello.settings
            self.subscriptions = hello.subscriptions
            known = [s.topics for s in self.subscriptions if not s.pattern]
            self.retired.merge(Tally(chain.from_iterable(known)))

    def _open(self, child: Child) -> None:
        """Open everything else: the port, the journal, the other workers."""
        assert child.hello is not None
        settings = child.hello.settings
        logs.configure(settings.log_format, settings.log_level, process="supervisor")
        self._http = self.host.listen(self.view, settings)
        state_dir = settings.resolved_state_dir(self._target, Path.cwd())
        self._journal = self.host.journal(state_dir, guarded=settings.keeps_state_in_public)
        self.post_mortem = PostMortem(self.host, self._journal)
        self._journal.write_start(at=self.host.wall(), version=penstock.__version__)
        self._learn(child.hello)
        self._http.start()
        self.log.info(
            "started",
            version=penstock.__version__,
            groups=self.groups,
            topics=self.topics,
            workers=self.places,
            http=f"{settings.http_host}:{self._http.port}",
        )
        self.recycling.opened()
        self.running.opened(self._journal)
        for index in range(self.places):
            if self.slots.worker(index) is None:
                try:
                    self.spawn(index)
                except OSError as error:
                    self.fail(Exit.CRASHED, f"worker {index} could not be started: {error}")
                    return

    # -- serve -------------------------------------------------------------------------

    def _step(self, now: float) -> None:
        """Bring the workers in line with what was asked. Looks at states, not at events."""
        if not self.lifecycle.ending and self.settings is not None:
            self.running.step()
            self.replacing.step(now)
            self.recycling.step(now)
            self.running.look_for_the_end()
        if self.lifecycle.ending:
            self.drain.step(now)
        self.dumps.check(now)

    def replace(
        self, index: int, reason: str, *, room: bool = True
    ) -> Replacement | Renewal | None:
        """Replace a worker in place on purpose; see :meth:`Replacing.replace`."""
        return self.replacing.replace(index, reason, room=room)

    # -- processes that end ------------------------------------------------------------

    def _reap(self) -> None:
        """Collect every child that ended, with what it left behind."""
        while (found := self.host.reap(self.slots.everyone())) is not None:
            pid, status = found
            child = self.slots.find(pid)
            if child is not None:
                self._bury(child, status)

    def _bury(self, child: Child, status: int) -> None:
        """Judge an end, whoever it was: the one place where that is done."""
        child.reaped(status)
        self._hear(child)
        self._unlisten(child)
        end = judge(child, status)
        found = self.post_mortem.examine(child, peak=self.host.peak)
        if not end.planned:
            end = replace(end, reason=f"{end.reason}{found}")
            self._last_record.died(found)
        blamed = blame(child, end, spare=self._is_spare(child))
        self._last_record.done(child.board.done_at())
        with self.lock:
            child.end = end
            self.retired.merge(child.tally)
            if end.counts:
                self.worker_exits[(str(end.code), exits.name_of(end.code), end.planned)] += 1
            self.drain.ended(child)
            successor = self.slots.remove(child)
            if successor is not None and successor.hello is not None:
                self.subscriptions = successor.hello.subscriptions
            child.release()
        self._tell_end(child, end, successor)
        if blamed is Blame.SERVICE:
            reason = f"worker {child.index}: {end.reason}"
            self.fail(end.code, reason, gone=not child.draining)

    def _is_spare(self, child: Child) -> bool:
        """Whether its slot can do without it: the worker before it goes on, or is the last one."""
        worker = self.slots.before(child)
        return worker is not None and (self.lifecycle.ending or not worker.draining)

    def _tell_end(self, child: Child, end: End, successor: Child | None) -> None:
        log = self.log.info if end.planned else self.log.error
        log("worker ended", worker=child.index, code=end.code, reason=end.reason or None)
        if successor is not None and not self.lifecycle.ending:
            self.log.info("worker replaced", worker=successor.index, pid=successor.pid)

    def _gave_up(self, child: Child) -> None:
        """A worker cannot go on: the others drain while it does what it can."""
        words = child.fatal
        if child.to_leave:
            return  # there is nothing that the others would have to drain for
        if words is not None and (child.consumed or not self._is_spare(child)):
            reason = f"worker {child.index}: {words.reason}"
            self.fail(words.code, reason, gone=not child.draining)

    def fail(self, code: int, reason: str, *, gone: bool = False) -> None:
        """Note a failure and let the rest drain. No failure has a planned code."""
        code = failing(code)
        with self.lock:
            first = self.lifecycle.fail(code, reason)
            if gone and self.gone is None:
                self.gone = reason
            if not self.lifecycle.ending:
                self.lifecycle.go(State.DRAINING)
                self.asked_at = self.host.monotonic()
        if first:
            self.log.error("failing", code=code, name=exits.name_of(code), reason=reason)

    # -- finish ------------------------------------------------------------------------

    def over(self) -> bool:
        """Whether every process has ended, and nobody is to be waited for or to be sent."""
        if not self.lifecycle.ending or self.budget is None or self.slots.everyone():
            return False
        if self.drain.seats_left():
            return False
        return not self.lifecycle.waits_for_release or self.host.monotonic() >= self.budget.over_at

    def finish(self) -> int:
        """Tell the world how it ended, and end."""
        settings = self.settings
        if settings is not None and self.budget is not None and not self.lifecycle.forced:
            left = self.budget.left(self.host.monotonic())
            self.post_mortem.leave_word(settings, self.instance_of, left)
        if settings is not None and settings.quit_urls:
            ask_sidecars(settings.quit_urls, timeout=_QUIT_PATIENCE)
        code = int(self.lifecycle.exit_code())
        record = self._last_record.of(self, code)
        write_down(record, journal=self._journal, settings=settings, host=self.host, log=self.log)
        log_exit(record, self.log)
        if self._http is not None:
            self._http.stop()
        return code

    # -- small things ------------------------------------------------------------------

    @property
    def budget(self) -> Budget | None:
        """The drain's, once it began."""
        return self.drain.budget

    @property
    def places(self) -> int:
        """How many slots there are to be."""
        return self.settings.workers * len(self.subscriptions) if self.settings else 0

    @property
    def groups(self) -> list[str]:
        """The consumer groups, each once."""
        return list(dict.fromkeys(s.group for s in self.subscriptions))

    @property
    def topics(self) -> list[str]:
        """The topics, and patterns between slashes, each once."""
        return list(dict.fromkeys(chain.from_iterable(s.topics for s in self.subscriptions)))

    @property
    def run_id(self) -> str:
        """This run's name in the journal."""
        return "" if self._journal is None else self._journal.run

    @property
    def journal_path(self) -> str | None:
        """The file that the exit will be written to."""
        journal = self._journal
        return None if journal is None or journal.degraded else str(journal.path.absolute())

    @property
    def history(self) -> ExitHistory | None:
        """Exits of this service so far."""
        return None if self._journal is None else self._journal.history

    def misfit(self, hello: Hello) -> str | None:
        """Why a worker that says this cannot work beside the others."""
        before, after = len(self.subscriptions), len(hello.subscriptions)
        if before == after:
            return None
        return (  # which worker does what goes by that number
            f"the application has {after} subscriptions now, and had {before}: restart the service"
        )

    def healths(self) -> list[WorkerHealth]:
        """For the probes: one a slot, also one that is empty for a moment."""
        found = {child.index: child.health() for child in self.slots.workers()}
        missing = () if self.lifecycle.ending else set(range(self.places)).difference(found)
        nobody = {n: WorkerHealth(n, joined=False, polled_at=None, working=()) for n in missing}
        return list((found | nobody).values())

    def instance_of(self, index: int) -> str | None:
        """The ``group.instance.id`` of a worker."""
        from penstock.kafka.engine import instance_id  # noqa: PLC0415 (light, but a layer below)

        return instance_id(self.settings.instance_id if self.settings else None, index)
