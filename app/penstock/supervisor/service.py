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
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

import penstock
from penstock import exits
from penstock.budget import Budget
from penstock.errors import ConfigError
from penstock.exits import Exit
from penstock.lifecycle import Kind, Lifecycle, Request, State
from penstock.seat import Seat, seat_after
from penstock.settings import Settings
from penstock.supervisor import dumps, signals, termination
from penstock.supervisor.child import Child, Reading
from penstock.supervisor.descendants import reap
from penstock.supervisor.exit_history import ExitHistory
from penstock.supervisor.exit_record import ExitRecord, InFlight
from penstock.supervisor.health import WorkerHealth
from penstock.supervisor.journal import Journal
from penstock.supervisor.quit import ask_sidecars
from penstock.supervisor.reload import Reload
from penstock.supervisor.spawn import Spawned
from penstock.supervisor.verdict import judge
from penstock.telemetry import logs
from penstock.telemetry.tally import Tally
from penstock.wake import WakePipe

if TYPE_CHECKING:
    from penstock.http.server import HttpServer
    from penstock.supervisor.view import View

_TICK: Final = 0.25
_DEFAULT_DRAIN: Final = 25.0
_QUIT_PATIENCE: Final = 1.0


class Supervisor:
    """State shared between the main loop (which changes it) and HTTP (which reads it).

    ``lock`` guards it. It is held for memory only, never across I/O.
    """

    def __init__(self, target: str, pipe: WakePipe, first: list[Spawned]) -> None:
        """``pipe`` brings the signals; ``first`` are workers that were started already."""
        logs.configure(
            os.environ.get("PENSTOCK_LOG_FORMAT") or "json",
            os.environ.get("PENSTOCK_LOG_LEVEL") or "INFO",
            process="supervisor",
        )
        self.log = structlog.get_logger("penstock.supervisor")
        self.lock = threading.RLock()
        self.pipe = pipe
        self.lifecycle = Lifecycle()
        self.began = time.monotonic()
        self.asked_at = self.began
        self.settings: Settings | None = None
        self.subscriptions: tuple[Reading, ...] = ()
        self.children = {spawned.index: Child(spawned) for spawned in first}
        self.retired = Tally()
        self.worker_exits: Counter[tuple[str, str, bool]] = Counter()
        self.ever_started = False
        #: Why liveness fails: a worker ended without being asked to.
        self.gone: str | None = None
        self.budget: Budget | None = None
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._journal: Journal | None = None
        self._http: HttpServer | None = None
        self._view: View | None = None
        self._reload: Reload | None = None
        self._dumps = dumps.Dumps(self.log)
        self._sent_quiet = False
        self._drained_after: float | None = None
        self._stuck: list[InFlight] = []
        self._last_done: float | None = None
        self._gap_from: float | None = None

    # -- run ---------------------------------------------------------------------------

    def run(self) -> int:
        """From the first worker to the exit code."""
        self._selector.register(self.pipe, selectors.EVENT_READ)
        for child in self.children.values():
            self._selector.register(child.channel, selectors.EVENT_READ, child)
        from penstock.supervisor.view import View  # noqa: PLC0415 (imports while workers start)

        self._view = View(self)
        while not self._over():
            self._wait()
            self._reap()
            self._step(time.monotonic())
        return self._finish()

    def _wait(self) -> None:
        """Wait for a signal, a message or the next deadline, and take in what came."""
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self.pipe:
                for number in self.pipe.drain():
                    self._signalled(number)
            else:
                self._hear(key.data)

    def _patience(self) -> float:
        now = time.monotonic()
        if self.budget is None:
            return _TICK
        ahead = [t - now for t in (self.budget.worker_by, self.budget.over_at) if t > now]
        return min([_TICK, *ahead])

    def _signalled(self, number: int) -> None:
        request = signals.REQUESTS.get(number)
        if request is None or self._view is None:
            return
        if request.kind is Kind.DUMP:
            self._dumps.ask(self._everyone(), time.monotonic())
        else:
            self._view.ask(request)

    def _hear(self, child: Child) -> None:
        """Take in what a worker says; its last words come before its death is reaped."""
        for message in child.channel.receive():
            with self.lock:
                kind = child.take(message)
            if kind == "hello" and self.settings is None:
                self._open(child)
            elif kind == "fatal" and self.children.get(child.index) is child:
                self._gave_up(child)
            elif kind == "dumped":
                self._dumps.answered(child)
        if child.channel.ended:
            self._unlisten(child)

    def _unlisten(self, child: Child) -> None:
        if child.channel.fileno() in self._selector.get_map():
            self._selector.unregister(child.channel)

    # -- greet, open -------------------------------------------------------------------

    def spawn(self, index: int) -> Child:
        """Start a worker process; it waits until it is told to start consuming."""
        child = Child(Spawned(index, self._target))
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        return child

    def _open(self, child: Child) -> None:
        """The first worker has imported the app: settings are known; open everything else."""
        assert child.hello is not None
        try:
            self._open_with(child)
        except ConfigError as error:
            self._fail(Exit.CONFIG, str(error))
            self.log.error("bad configuration", reason=str(error))  # noqa: TRY400 (a sentence, not a trace)

    def _open_with(self, child: Child) -> None:
        assert child.hello is not None
        assert self._view is not None
        settings = child.hello.settings
        logs.configure(settings.log_format, settings.log_level, process="supervisor")
        from penstock.http.api import build_api  # noqa: PLC0415 (imports while workers start)
        from penstock.http.server import HttpServer, bind  # noqa: PLC0415
        from penstock.http.token import resolve_token  # noqa: PLC0415

        sock = bind(settings.http_host, settings.http_port)
        token = resolve_token(settings)
        self._journal = Journal.open(settings.resolved_state_dir(), now=time.time())
        self._gap_from = self._journal.history.restarted_from
        self._journal.write_start(at=time.time(), version=penstock.__version__)
        with self.lock:
            self.settings = settings
            self.subscriptions = child.hello.subscriptions
            known = [s.topics for s in self.subscriptions if not s.pattern]
            self.retired.merge(Tally(chain.from_iterable(known)))
        api = build_api(self._view, token, version=penstock.__version__)
        self._http = HttpServer(api, sock)
        self._http.start()
        self.log.info(
            "started",
            version=penstock.__version__,
            groups=self.groups,
            topics=self.topics,
            workers=settings.workers * len(self.subscriptions),
            http=f"{settings.http_host}:{self._http.port}",
        )
        for index in range(settings.workers * len(self.subscriptions)):
            if index not in self.children:
                child = self.spawn(index)
                with self.lock:
                    self.children[index] = child

    # -- serve -------------------------------------------------------------------------

    def _step(self, now: float) -> None:
        """Bring the workers in line with what was asked. Looks at states, not at events."""
        if self.lifecycle.ending:
            if self.budget is None:
                self._begin_drain(now)
            self._watch_drain(now)
        elif self.settings is not None:
            self._start_workers()
            self._apply_quiet()
            self._step_reload(now)
            self._stop_if_caught_up()
            self._measure_gap()
        self._dumps.check(now)

    def _start_workers(self) -> None:
        for child in self.children.values():
            if child.hello is not None and not child.started:
                child.start()
                if self.lifecycle.want_quiet:
                    child.channel.send("quiet")
        if not self.ever_started and all(
            child.ever_joined and child.board.poll_at() is not None
            for child in self.children.values()
        ):
            with self.lock:
                self.ever_started = True
                self.lifecycle.started()
            self.log.info("running", seconds=round(time.monotonic() - self.began, 3))

    def _apply_quiet(self) -> None:
        if self._sent_quiet != self.lifecycle.want_quiet:
            self._sent_quiet = self.lifecycle.want_quiet
            for child in self._everyone():
                child.channel.send("quiet" if self._sent_quiet else "resume")

    def _step_reload(self, now: float) -> None:
        if self.lifecycle.reloading and self._reload is None:
            self._reload = Reload(self)
        if self._reload is not None and self._reload.step(now):
            self._reload = None
            with self.lock:
                self.lifecycle.reloading = False

    def _stop_if_caught_up(self) -> None:
        """A batch run ends as if somebody had asked it to stop: drained, committed, 0."""
        assert self.settings is not None
        assert self._view is not None
        if not self.settings.stop_when_caught_up or self.lifecycle.reloading:
            return
        if self.ever_started and all(c.facts.get("caught_up") for c in self.children.values()):
            why = "caught up with everything that was there at the start"
            self._view.ask(Request(Kind.STOP, source="batch", detail="batch", reason=why))

    def swap(self, new: Child) -> None:
        """Put a replacement in its predecessor's place."""
        with self.lock:  # in the order of their places, as /status shows them
            self.children = dict(sorted({**self.children, new.index: new}.items()))
            if new.hello is not None:
                self.subscriptions = new.hello.subscriptions

    def _measure_gap(self) -> None:
        """The restart gap ends with the first record that any worker hands to a handler."""
        if self._gap_from is None or self._journal is None:
            return
        taken = [t for c in self.children.values() if (t := c.board.taken_at()) is not None]
        if taken:
            gap = max(0.0, min(taken) - self._gap_from)
            self._gap_from = None
            self._journal.record_gap(gap)
            self.log.info("restart gap", seconds=round(gap, 3))

    # -- workers that end --------------------------------------------------------------

    def _reap(self) -> None:
        """Collect every child that ended, with what it left behind."""
        for pid, code in reap(self._everyone()):
            for child in self._everyone():
                if child.pid == pid:
                    self._buried(child, code)

    def _buried(self, child: Child, status: int) -> None:
        child.reaped(status)
        self._hear(child)
        self._unlisten(child)
        end = judge(child, exits.from_wait_status(status))
        done = child.board.done_at()
        with self.lock:
            if done is not None:
                self._last_done = max(done, self._last_done or 0.0)
            self.retired.merge(child.tally)
            if end.counts:
                self.worker_exits[(str(end.code), exits.name_of(end.code), end.planned)] += 1
            replaced = self._reload is not None and self._reload.buried(child, end)
            if self.children.get(child.index) is child:
                del self.children[child.index]
            child.release()
        if end.stuck:
            self._stuck.extend(end.stuck)
        if not end.planned and end.counts:
            self.log.error("worker ended", worker=child.index, code=end.code, reason=end.reason)
            if not replaced:
                self._fail(end.code, f"worker {child.index}: {end.reason}", gone=not child.draining)
        else:
            self.log.info("worker ended", worker=child.index, code=end.code)

    def _gave_up(self, child: Child) -> None:
        """A worker cannot go on: the others drain while it does what it can."""
        words = child.fatal
        if words is not None:
            reason = f"worker {child.index}: {words.reason}"
            self._fail(words.code, reason, gone=not child.draining)

    def _fail(self, code: int, reason: str, *, gone: bool = False) -> None:
        """Note a failure and let the rest drain."""
        with self.lock:
            first = self.lifecycle.fail(code, reason)
            if gone and self.gone is None:
                self.gone = reason
            if not self.lifecycle.ending:
                self.lifecycle.go(State.DRAINING)
                self.asked_at = time.monotonic()
        if first:
            self.log.error("failing", code=code, name=exits.name_of(code), reason=reason)

    # -- drain -------------------------------------------------------------------------

    def _begin_drain(self, now: float) -> None:
        seconds = self.settings.drain_timeout if self.settings else _drain_hint()
        with self.lock:
            # Counted from the request, not from when the loop got to it.
            self.budget = Budget.of(seconds, now=min(now, self.asked_at))
        self.log.info("draining", budget=seconds, workers=len(self.children))
        self._tell_to_drain(now)

    def _tell_to_drain(self, now: float) -> None:
        assert self.budget is not None
        life = self.lifecycle
        self._told = restart = life.intent is None or life.intent.kind is Kind.RESTART
        seat = seat_after(
            static=self.settings is not None and self.settings.instance_id is not None,
            restart=restart,
            held=life.held,
            stable_identity=self.settings is not None and self.settings.stable_identity,
        )
        for child in self._everyone():
            child.drain(restart=restart, seat=seat, seconds=self.budget.left(now))

    _told = True

    def _watch_drain(self, now: float) -> None:
        """Keep the deadline: ask for stacks when a worker cannot help itself, then end it."""
        assert self.budget is not None
        life = self.lifecycle
        if self._told and life.intent is not None and life.intent.kind is Kind.STOP:
            self._tell_to_drain(now)  # a stop outranked the restart: the seat is given up
        if life.forced:
            self._end_by_force("forced by a second SIGINT", now)
        elif now >= self.budget.over_at:
            self._end_by_force("the drain deadline passed", now)
        elif now >= self.budget.worker_by:
            self._dumps.force(self.children.values())
        if not self._everyone() and self._drained_after is None:
            self._drained_after = now - self.asked_at

    def _end_by_force(self, why: str, now: float) -> None:
        for child in self._everyone():
            if child.killed:
                continue
            words = child.last_words
            if words is None or not words.clean:
                held = child.in_flight(now, stack=self._dumps.stack_of(child))
                self._stuck.extend(held)
                names = ", ".join(f"{h.topic}[{h.partition}]@{h.offset}" for h in held)
                reason = f"{why} with {names or 'no record'} in flight in worker {child.index}"
                for item in held:
                    self.log.error("blocked the drain", **item.to_json())
                self._fail(Exit.FORCED, reason)
            else:
                self.log.warning("a drained worker did not exit; ending it", worker=child.index)
            child.kill()

    def _over(self) -> bool:
        if not self.lifecycle.ending or self.budget is None or self._everyone():
            return False
        return not self.lifecycle.waits_for_release or time.monotonic() >= self.budget.over_at

    # -- finish ------------------------------------------------------------------------

    def _finish(self) -> int:
        """Tell the world how it ended, and end."""
        settings = self.settings
        if settings is not None and settings.quit_urls:
            ask_sidecars(settings.quit_urls, timeout=_QUIT_PATIENCE)
        with self.lock:
            self.lifecycle.go(State.STOPPED)
            code = int(self.lifecycle.exit_code())
        record = ExitRecord.of(
            code,
            reason=self.lifecycle.reason,
            at=time.time(),
            requested_by=self.lifecycle.requested_by,
            drain_seconds=self._drained_after,
            in_flight_at_deadline=tuple(self._stuck),
            uptime_seconds=time.monotonic() - self.began,
            last_done_at=self._last_done,
        )
        self._write_down(record)
        log = self.log.info if record.planned else self.log.error
        log(
            "exit",
            code=code,
            name=record.name,
            planned=record.planned,
            reason=record.reason,
            requested_by=record.requested_by or None,
            drain_seconds=None if record.drain_seconds is None else round(record.drain_seconds, 3),
        )
        if self._http is not None:
            self._http.stop()
        return code

    def _write_down(self, record: ExitRecord) -> None:
        journal = self._journal
        if journal is None and (state_dir := os.environ.get("PENSTOCK_STATE_DIR")):
            # The configuration was refused before the journal was opened: count it anyway.
            try:
                journal = Journal.open(Path(state_dir), now=time.time())
            except ConfigError as error:
                self.log.warning(str(error))
        if journal is not None:
            journal.write_exit(record)
            journal.close()
        path = self.settings.termination_log if self.settings else termination_hint()
        termination.write_termination(path, record)

    # -- small things ------------------------------------------------------------------

    @property
    def groups(self) -> list[str]:
        """The consumer groups, each once."""
        return list(dict.fromkeys(s.group for s in self.subscriptions))

    @property
    def topics(self) -> list[str]:
        """The topics, and patterns between slashes, each once."""
        return list(dict.fromkeys(chain.from_iterable(s.topics for s in self.subscriptions)))

    @property
    def history(self) -> ExitHistory | None:
        """Exits of this service so far."""
        return None if self._journal is None else self._journal.history

    def _everyone(self) -> list[Child]:
        """Every process there is, replacements included."""
        beside = self._reload.replacement if self._reload is not None else None
        return [*self.children.values(), *([beside] if beside is not None else [])]

    def healths(self) -> list[WorkerHealth]:
        """For the probes: one a slot."""
        return [child.health() for child in self.children.values()]

    def instance_of(self, index: int) -> str | None:
        """The ``group.instance.id`` of a worker."""
        from penstock.kafka.engine import instance_id  # noqa: PLC0415 (light, but a layer below)

        return instance_id(self.settings.instance_id if self.settings else None, index)

    def seat_in_place(self) -> Seat:
        """The seat of a worker that is replaced in place."""
        static = self.settings is not None and self.settings.instance_id is not None
        return seat_after(static=static, restart=True)


def _drain_hint() -> float:
    try:
        return float(os.environ.get("PENSTOCK_DRAIN_TIMEOUT") or _DEFAULT_DRAIN)
    except ValueError:
        return _DEFAULT_DRAIN


def termination_hint() -> Path:
    """Where the exit record goes when the settings were refused."""
    default: Any = Settings.model_fields["termination_log"].default
    return Path(os.environ.get("PENSTOCK_TERMINATION_LOG") or default)
