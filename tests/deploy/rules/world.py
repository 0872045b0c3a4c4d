"""A small world with pods, as Prometheus sees it: input for ``promtool test rules``.

What a pod exports is not modelled: each scrape is answered by the service's own collector, from
a journal that the service's own ledger reads. What kube-state-metrics exports is written after
its output (``kube-state-metrics.txt``, which a test compares), and what the kubelet does with a
container that ended after its source: the first restart at once, then 10 s, 20 s … 300 s.

Times are in seconds since the start of the world.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final

from penstock.lifecycle import State
from penstock.supervisor.exit_history import Ledger, exit_line, start_line
from penstock.supervisor.exit_record import ExitRecord
from penstock.telemetry.collector import Facts, WorkerFacts, exposition
from penstock.telemetry.tally import Tally
from tests.deploy.rules.reading import alerts

ROOT: Final = Path(__file__).resolve().parents[3]
RULES: Final = ROOT / "helm" / "penstock" / "files" / "rules.yaml"

#: Between two scrapes, and between two evaluations of the rules.
STEP: Final = 30
MINUTE: Final = 60
#: From the start of a container to its first answer, and to its seat in the group.
_ANSWERS: Final = 2
_JOINED: Final = 4
#: The kubelet forgets how often it restarted a container that then ran for so long.
_FORGIVEN: Final = 10 * MINUTE
_NEVER: Final = float("inf")

Series = dict[str, float]  # name{labels} → value
Span = tuple[float, float]


def at(minutes: float) -> float:
    """Minutes in seconds."""
    return minutes * MINUTE


@dataclass
class Run:
    """A container from its start to its end. ``code`` is the one that the kubelet sees.

    ``answers_at`` is never (infinity) for a run that ends before it opens its journal.
    """

    start: float
    answers_at: float
    joined_at: float
    end: float = _NEVER
    code: int = 0
    lost: bool = False

    def alive(self, now: float) -> bool:
        return self.start <= now < self.end


@dataclass(frozen=True, slots=True)
class Trouble:
    """What fails in a run: dead letters so far, as (topic, failed, ok), and what is the matter now.

    ``retrying`` is in records.
    """

    letters: tuple[tuple[str, int, int], ...] = ()
    retrying: int = 0
    breaker_closed: bool = True


@dataclass
class Pod:
    """A pod with one Penstock container, in a ``world``; or, without one, a static target."""

    name: str
    born: float
    uid: str
    owner: tuple[str, str]
    kubernetes: bool = True
    sidecar: bool = False
    jobs: tuple[str, ...] = ("shop/orders",)
    container: str = "penstock"
    joins_after: float = _JOINED
    work: Callable[[float], tuple[int, Mapping[int, int]]] = lambda _: (0, {})
    trouble: Callable[[float], Trouble] = lambda _: Trouble()
    runs: list[Run] = field(default_factory=list)
    journal: list[tuple[float, bytes]] = field(default_factory=list)
    phases: list[tuple[float, str]] = field(default_factory=list)
    quiet: Span = (_NEVER, _NEVER)
    unscraped: Span = (_NEVER, _NEVER)
    waits: str = ""
    deleted_at: float = _NEVER
    gone_at: float = _NEVER
    _ledger: Ledger = field(default_factory=Ledger)
    _restarts: int = 0

    # -- what happens to it ------------------------------------------------------------

    def start(self, now: float, *, boots: bool = True) -> Run:
        """Start the container. One that does not boot never gets as far as its journal."""
        answers = now + _ANSWERS if boots else _NEVER
        run = Run(now, answers, now + self.joins_after if boots else _NEVER)
        self.runs.append(run)
        if not self.phases:
            self.phases.append((now, "Running"))
        return run

    def exit(
        self, now: float, code: int, *, lost: bool = False, boots: bool = True, back: bool = True
    ) -> None:
        """End the current run; ``lost`` leaves no exit line. ``boots``: whether the next one does.

        The kubelet restarts the container, after its back-off.
        """
        run = self._end(now, code, lost=lost)
        if now - run.start >= _FORGIVEN:
            self._restarts = 0
        wait = 0 if self._restarts == 0 else min(10 * 2 ** (self._restarts - 1), 300)
        self._restarts += 1
        if back:
            self.start(now + 1 + wait, boots=boots)

    def finish(self, now: float, code: int) -> None:
        """End the pod with its container, as it does where nothing restarts that."""
        self._end(now, code, lost=False)
        self.phases.append((now, "Succeeded" if code == 0 else "Failed"))

    def delete(self, now: float, code: int, *, lingers: float = 0) -> None:
        """Delete the pod: it drains for 5 s, exits, and is gone (a finalizer may keep it)."""
        self.deleted_at = now
        if self.runs and self.runs[-1].alive(now):
            self.finish(now + 5, code)
        self.gone_at = now + 5 + lingers

    def remember(self, exits: Iterable[tuple[float, int]]) -> None:
        """Exits of earlier runs, which a journal that outlives its pod has."""
        for number, (when, code) in enumerate(exits):
            self._note(when, exit_line(f"earlier-{number}", _record(code, when)))

    def _end(self, now: float, code: int, *, lost: bool) -> Run:
        run = self.runs[-1]
        run.end, run.code, run.lost = now, code, lost
        name = f"run-{len(self.runs)}"
        if run.answers_at < now:
            for line in self._ledger.lost(run.answers_at):
                self._note(run.answers_at, line)
            self._note(run.answers_at, start_line(name, at=run.answers_at, version="0"))
            if not lost:
                self._note(now, exit_line(name, _record(code, now)))
        return run

    def _note(self, now: float, line: bytes) -> None:
        self._ledger.feed(line)
        self.journal.append((now, line))

    # -- what is seen of it ------------------------------------------------------------

    def run_at(self, now: float) -> Run | None:
        """The latest run that has started."""
        started = [run for run in self.runs if run.start <= now]
        return started[-1] if started else None

    def exists(self, now: float) -> bool:
        return self.born <= now < self.gone_at

    def state(self, now: float) -> State:
        run = self.run_at(now)
        assert run is not None
        if now >= self.deleted_at:
            return State.DRAINING
        if now < run.joined_at:
            return State.STARTING
        return State.QUIET if self.quiet[0] <= now < self.quiet[1] else State.RUNNING

    def phase(self, now: float) -> str:
        return next((name for since, name in reversed(self.phases) if since <= now), "Pending")

    def scraped(self, now: float) -> Series:
        """The target's series; only ``up`` where it does not answer."""
        if not self.exists(now) or self.phase(now) in ("Succeeded", "Failed"):
            return {}  # no target
        if self.unscraped[0] <= now < self.unscraped[1]:
            return {}
        found: Series = {}
        run = self.run_at(now)
        answers = run is not None and run.alive(now) and run.answers_at <= now
        exported = self._exported(now) if answers else ()
        for job in self.jobs:
            target = series(
                "",
                {
                    "namespace": "shop",
                    "pod": self.name,
                    "container": self.container,
                    "job": job,
                    "instance": f"{self.uid}:8080",
                },
            )[1:]
            found["up{" + target] = float(answers)
            for name, own, value in exported:
                found[f"{name}{{{own}{target}"] = value
        return found

    def _exported(self, now: float) -> tuple[tuple[str, str, float], ...]:
        """The service's answer: metric, its own labels (each with a comma behind it), value."""
        run = self.run_at(now)
        assert run is not None
        written = tuple(line for when, line in self.journal if when <= now)
        state = self.state(now)
        running = state is State.RUNNING
        done, lag = self.work(now) if running else (0, {})
        trouble = self.trouble(now) if running else Trouble()
        found_at = run.answers_at if run.end == _NEVER else None
        return _answer(written, found_at, state, done, tuple(lag.items()), trouble)

    def described(self, now: float) -> Series:
        """What kube-state-metrics says of the pod and its container."""
        if not self.kubernetes or not self.exists(now):
            return {}
        pod = {"namespace": "shop", "pod": self.name, "uid": self.uid}
        here = {**pod, "container": self.container}
        kind = "kube_pod_init_container" if self.sidecar else "kube_pod_container"
        phase = self.phase(now)
        run, last, wait = self._container(now)
        ended = run is not None and not run.alive(now)
        ready = run is not None and run.alive(now) and self.state(now) is State.RUNNING
        image = {"image_spec": "orders:1", "image": "orders:1", "image_id": "sha256:1"}
        image |= {"container_id": f"containerd://{len(self.runs)}"}
        if self.sidecar:
            image["restart_policy"] = "Always"
        found: Series = {
            series(f"{kind}_info", {**here, **image}): 1,
            series(f"{kind}_status_ready", here): float(ready),
            series(f"{kind}_status_running", here): float(run is not None and run.alive(now)),
            series(f"{kind}_status_terminated", here): float(ended and not wait),
            series(f"{kind}_status_waiting", here): float(bool(wait)),
            series(
                "kube_pod_owner",
                {
                    **pod,
                    "owner_kind": self.owner[0],
                    "owner_name": self.owner[1],
                    "owner_is_controller": "true",
                },
            ): 1,
        }
        for name in ("Pending", "Succeeded", "Failed", "Unknown", "Running"):
            found[series("kube_pod_status_phase", {**pod, "phase": name})] = float(name == phase)
        if wait:
            found[series(f"{kind}_status_waiting_reason", {**here, "reason": wait})] = 1
        if last is not None:
            found[series(f"{kind}_status_last_terminated_exitcode", here)] = last.code
            found[series(f"{kind}_status_last_terminated_timestamp", here)] = int(last.end)
        if run is not None and ended and not wait:
            reason = "Completed" if run.code == 0 else "Error"
            found[series(f"{kind}_status_terminated_reason", {**here, "reason": reason})] = 1
            if not self.sidecar:
                found[series("kube_pod_completion_time", pod)] = int(run.end)
        if now >= self.deleted_at:
            found[series("kube_pod_deletion_timestamp", pod)] = int(self.deleted_at)
        return found

    def _container(self, now: float) -> tuple[Run | None, Run | None, str]:
        """Its run, the run before that is its last state, and what it waits for."""
        if self.waits:
            return None, None, self.waits
        started = [run for run in self.runs if run.start <= now]
        if not started:
            return None, None, "ContainerCreating"
        run = started[-1]
        before = started[-2] if len(started) > 1 else None
        if run.alive(now) or self.phase(now) in ("Succeeded", "Failed"):
            return run, before, ""
        return run, run, "CrashLoopBackOff"


@dataclass
class World:
    """Pods, whoever watches them, and what the watchers missed.

    ``kubernetes`` without: static targets, no kube-state-metrics. In it lives a pod of other
    people that crashes, fails and is never ready; no rule may look at it.
    """

    kubernetes: bool = True
    pods: list[Pod] = field(default_factory=list)
    failed_jobs: list[tuple[float, str]] = field(default_factory=list)
    #: When kube-state-metrics was away, and when Prometheus was.
    ksm_away: Span = (_NEVER, _NEVER)
    prometheus_away: Span = (_NEVER, _NEVER)

    def pod(
        self,
        name: str = "orders-0",
        born: float = 0,
        *,
        starts: bool = True,
        owner: tuple[str, str] = ("ReplicaSet", "orders-5d4f"),
        **more: object,
    ) -> Pod:
        """A new pod; its container starts with it."""
        uid = f"10.0.0.{len(self.pods) + 1}"
        pod = Pod(name, born, uid, owner, self.kubernetes, **more)  # type: ignore[arg-type] # fields
        self.pods.append(pod)
        if starts:
            pod.start(born)
        return pod

    def lines(self, until: float, names: Iterable[str]) -> list[dict[str, str]]:
        """Every series as promtool writes them: a value for each step, or a stale marker."""
        wanted = set(names)
        moments = [n * STEP for n in range(int(until) // STEP + 1)]
        found: dict[str, dict[float, str]] = {}
        before: Series = {}
        for now in moments:
            if self.prometheus_away[0] <= now < self.prometheus_away[1]:
                continue  # nobody is there to write that a series ended
            seen = {n: v for n, v in self._seen(now).items() if n.partition("{")[0] in wanted}
            for name, value in seen.items():
                found.setdefault(name, {})[now] = f"{value:.15g}"
            for name in before.keys() - seen.keys():
                found[name][now] = "stale"
            before = seen
        return [
            {"series": name, "values": _shorter(values.get(now, "_") for now in moments)}
            for name, values in found.items()
        ]

    def _seen(self, now: float) -> Series:
        seen: Series = {}
        for pod in self.pods:
            seen |= pod.scraped(now)
        if self.kubernetes and not self.ksm_away[0] <= now < self.ksm_away[1]:
            described = {'kube_node_info{node="a"}': 1.0}
            for pod in (*self.pods, *_neighbours(now)):
                described |= pod.described(now)
            for since, name in self.failed_jobs:
                if now >= since:
                    job = {"namespace": "shop", "job_name": name, "condition": "true"}
                    described[series("kube_job_failed", job)] = 1
            watcher = 'job="kube-state-metrics",instance="10.0.1.1:8080"'
            seen |= {f"{name[:-1]},{watcher}}}": value for name, value in described.items()}
        return seen


@cache
def _answer(
    journal: tuple[bytes, ...],
    found_at: float | None,
    state: State,
    done: int,
    lag: tuple[tuple[int, int], ...],
    trouble: Trouble,
) -> tuple[tuple[str, str, float], ...]:
    """``GET /metrics`` of a service with this journal and this to do.

    ``found_at`` is when the current run found out about a lost one; None where the journal
    says so already.
    """
    ledger = Ledger()
    for line in journal:
        ledger.feed(line)
    for line in ledger.lost(found_at) if found_at is not None else ():
        ledger.feed(line)
    tally = Tally(["orders"])
    tally.count("orders", "done", done)
    for topic, failed, taken in trouble.letters:
        for _ in range(failed):
            tally.dead_letter(topic, "failed")
        for _ in range(taken):
            tally.dead_letter(topic, "ok")
    worker = WorkerFacts(
        index=0,
        tally=tally,
        lag={("orders", partition): records for partition, records in lag},
        assigned=len(lag),
        in_flight=0,
        oldest_in_flight=None,
        poll_age=0.1,
        group="billing",
        retrying=trouble.retrying,
        breaker_closed=trouble.breaker_closed,
    )
    facts = Facts(
        state=state,
        workers=[worker],
        retired=Tally(),
        exits=ledger.history(),
        worker_exits={},
        restart_requests={},
        build={"version": "0", "python": "3", "kafka_python": "3"},
    )
    text, _ = exposition(facts, "")
    rows = (line.rpartition(" ") for line in text.decode().splitlines() if line[:1] != "#")
    parts = ((key.partition("{"), value) for key, _, value in rows)
    return tuple(
        (name, f"{own[:-1]}," if own else "", float(value)) for (name, _, own), value in parts
    )


def _neighbours(now: float) -> Iterator[Pod]:
    """Other people's pods: one in a crash loop, one that failed just now."""
    minute = now // MINUTE * MINUTE
    looping = Pod("theirs-0", 0, "10.0.9.1", ("ReplicaSet", "theirs"), container="app")
    looping.start(max(minute - 2 * MINUTE, 0), boots=False)
    looping.exit(max(minute - MINUTE, 1), 1, boots=False)
    failed = Pod("theirs-1", 0, "10.0.9.2", ("ReplicaSet", "theirs"), container="app")
    failed.start(0)
    failed.finish(max(minute, 1), 1)
    yield from (looping, failed)


def series(name: str, labels: Mapping[str, str]) -> str:
    """``name{label="value",…}``."""
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}"


def _shorter(values: Iterable[str]) -> str:
    parts = []
    for value, group in groupby(values):
        count = len(list(group))
        if value == "stale":
            parts += ["stale"] * count
        else:  # "7x2" is three sevens; "_x2" is two gaps
            parts.append(f"_x{count}" if value == "_" else f"{value}x{count - 1}")
    return " ".join(parts)


def _record(code: int, when: float) -> ExitRecord:
    drain = 1.0 if code in (0, 2, 4) else None
    return ExitRecord.of(code, reason="as the test said", at=when, drain_seconds=drain)


# -- asking promtool -------------------------------------------------------------------------


def names_in(rules: Path) -> set[str]:
    """The metrics that the rules look at."""
    found = (selector for alert in alerts(rules.read_text()) for selector in alert.selectors)
    return {name for selector in found for name in selector.names}


def promtool(tool: Path, rules: Path, test: dict[str, object], scratch: Path) -> str:
    """Run one unit test; what promtool has to complain, or nothing.

    The test file is JSON, which is YAML; it stays in ``scratch`` to be run by hand.
    """
    file = scratch / "test.json"
    whole = {"rule_files": [str(rules)], "evaluation_interval": f"{STEP}s", "tests": [test]}
    file.write_text(json.dumps(whole, indent=1))
    done = subprocess.run(
        [tool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else f"{file}\n{done.stdout}{done.stderr}"


def firing(world: World, rules: Path, expected: Mapping[float, set[str]]) -> dict[str, object]:
    """A unit test that these alerts fire at these minutes, and no other alert at all.

    An alert is written ``Name label=value``, with the labels that tell what it is about.
    """
    query = 'max by (alertname, pod, job_name, topic, group) (ALERTS{alertstate="firing"})'
    return {
        "interval": f"{STEP}s",
        "input_series": world.lines(max(expected) * MINUTE, names_in(rules)),
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": f"{minutes * MINUTE:g}s",
                "exp_samples": [{"labels": _labels(alert), "value": 1} for alert in names],
            }
            for minutes, names in expected.items()
        ],
    }


def _labels(alert: str) -> str:
    name, *about = alert.split()
    rest = (word.partition("=") for word in about)
    return series("", {"alertname": name, **{label: value for label, _, value in rest}})
