"""``python -m devtools.soak``: KILL at random moments, for as long as you like; then count.

Two services of one group, one with coroutines and one with threads, 64 records at a time each,
in order by key, at work on a stream of many keys. Every few seconds one of them is hit: its
worker is killed, or the whole service, or it is asked to restart. In the end:

* nothing is lost, and the order of each key was kept;
* a planned restart repeated nothing;
* whatever was repeated had been finished by a process that was killed, was not in what the
  group had committed at that moment (the offset, and the map beside it), and had been finished
  no longer before than a commit takes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from devtools import spans, tasks
from devtools.broker import Admin, Broker, BrokerError
from devtools.commits import Commits
from devtools.service import Service, ServiceError, worker_pids
from devtools.spans import At, Span, Verdict
from devtools.tasks import Reader, Task, TaskStream, partition_of
from penstock import map_seal

PARTITIONS = 12
KEYS = 500
CONCURRENCY = 64
COMMIT_INTERVAL = 0.2

#: Seconds that a finished record may be uncommitted: a commit is due every 0.2 s, is sent and
#: answered inside polls of at most 0.1 s, and starts only after the one before was answered.
#: While the group rebalances the broker refuses commits, and polls of a member that joins last
#: a second. Measured: 0.4 s, and at most 1.2 s beside a rebalance.
COMMITTED_WITHIN = COMMIT_INTERVAL + 1.5

_STALL = 60.0
#: A start takes two seconds; a machine that is busy with other things is not to end the soak.
_READY = 120.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was killed, and what the group had committed then."""

    pid: int
    at: float
    committed: dict[int, tuple[int, str]]

    def knew(self, record: At) -> bool:
        """Whether the commits said that this one is finished."""
        partition, offset = record
        position, text = self.committed.get(partition, (0, ""))
        return offset < position or offset in map_seal.told(position, text).finished


@dataclass
class Outcome:
    """What a soak found."""

    seed: int
    seconds: float
    verdict: Verdict
    kills: list[Kill]
    deeds: Counter[str]
    #: What should not have been, in sentences.
    faults: list[str] = field(default_factory=list)
    #: Seconds between a record's end and the kill after which it was repeated.
    ages: list[float] = field(default_factory=list)
    #: Kills at which some map was committed.
    mapped: int = 0

    def __str__(self) -> str:
        rate = self.verdict.handled / self.seconds
        repeats, kills = len(self.ages), len(self.kills)
        oldest = f", finished at most {max(self.ages):.2f} s before" if self.ages else ""
        did = ", ".join(f"{count} {deed}" for deed, count in sorted(self.deeds.items()))
        return "\n".join(
            [
                f"seed {self.seed}, {self.seconds:.0f} s: {did}; {rate:.0f} records/s",
                str(self.verdict).splitlines()[0],
                f"{repeats} repeats after {kills} kills{oldest}",
                f"at {self.mapped} of {kills} kills, offsets beyond the watermark were committed",
                *self.faults,
            ]
        )


class Soak:
    """The services, their load, and what is done to them."""

    def __init__(
        self,
        bootstrap: str,
        directory: Path,
        seed: int,
        rate: float,
        within: float = COMMITTED_WITHIN,
    ) -> None:
        """``within``: seconds that a finished record may be uncommitted; more on a busy machine."""
        self._bootstrap = bootstrap
        self._within = within
        self._random = random.Random(seed)
        self._seed = seed
        self._topic = f"soak-{os.getpid()}-{seed}"
        self._directory = directory
        self._ledgers = [directory / "ledger-async", directory / "ledger-sync"]
        Admin(bootstrap).create_topic(self._topic, PARTITIONS)
        self._stream = TaskStream(bootstrap, self._topic, PARTITIONS, self._tasks(), rate=rate)
        # One with an identity, whose seat waits for it; one without, for which the group
        # rebalances each time.
        self._services = [
            self._service(0, asynchronous=True, instance_id="soak", stable_identity=True),
            self._service(1, asynchronous=False),
        ]
        self._kills: list[Kill] = []
        self._deeds: Counter[str] = Counter()
        self._faults: list[str] = []

    def _tasks(self) -> Iterator[Task]:
        rng = random.Random(self._seed)
        while True:
            key = b"key-%d" % rng.randrange(KEYS)
            sleep = rng.choice([0, 0.001, 0.005, 0.02, 0.1])
            yield Task(partition_of(key, PARTITIONS), key, sleep=sleep)

    def _service(self, number: int, *, asynchronous: bool, **settings: object) -> Service:
        reader = Reader(
            self._topic,
            self._topic,
            self._ledgers[number],
            asynchronous=asynchronous,
            options={"order_by": "key", "concurrency": CONCURRENCY},
        )
        return Service(
            tasks.APP,
            self._directory / f"service-{number}",
            env=tasks.environment(reader),
            bootstrap_servers=self._bootstrap,
            commit_interval=COMMIT_INTERVAL,
            session_timeout=6,  # a group waits that long for a member that was killed
            heartbeat_interval=1.5,
            **settings,  # type: ignore[arg-type] # settings
        )

    def run(self, seconds: float) -> Outcome:
        """Soak, then judge. Raises what a service did instead of what it was to do."""
        with ExitStack() as stack:
            stack.callback(self._stream.close)
            commits = stack.enter_context(Commits(self._bootstrap))
            for service in self._services:
                stack.callback(service.close)
                service.start()
            for service in self._services:
                service.until_ready(_READY)
            began = time.monotonic()
            self._stream.start()
            while time.monotonic() - began < seconds:
                self._look_on(self._random.uniform(0.3, 3.0))
                self._strike(self._random.choice(self._services), commits)
            self._stream.stop()
            self._until_all_done()
            took = time.monotonic() - began
            for service in self._services:
                self._expect(service.stop(), 0, "stop")
        return self._judge(took)

    def _look_on(self, seconds: float) -> None:
        """The moment is to be random: nothing is waited for but the time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for service in self._services:
                if not service.running:
                    raise ServiceError(f"a service ended by itself\n{service.log_tail()}")
            time.sleep(min(0.05, max(0.0, until - time.monotonic())))

    def _strike(self, service: Service, commits: Commits) -> None:
        deed = self._random.choice(["worker killed", "service killed", "restart"])
        self._deeds[deed] += 1
        if deed == "restart":
            self._expect(service.stop(signal.SIGUSR2), 4, deed)
        else:
            (worker,) = worker_pids(service.pid)
            at = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            if deed == "service killed":
                os.kill(service.pid, signal.SIGKILL)
            # Nobody commits for the dead any more, and nobody else for their partitions
            # before the group has given them away.
            self._kills.append(Kill(worker, at, commits.of(self._topic, self._topic)))
            self._expect(service.wait(), 128 + signal.SIGKILL, deed)
        service.start().until_ready(_READY)

    def _expect(self, code: int, wanted: int, deed: str) -> None:
        if code != wanted:
            self._faults.append(f"{deed}: exit {code} instead of {wanted}")

    def _until_all_done(self) -> None:
        total = self._stream.produced
        before, since = 0, time.monotonic()
        while (now := spans.done(*self._ledgers)) < total:
            if now > before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > _STALL:
                self._faults.append(f"only {now} of {total} were handled")
                return
            time.sleep(0.1)  # the poll interval of a wait on a condition

    def _judge(self, seconds: float) -> Outcome:
        verdict = spans.judge(spans.read(*self._ledgers), self._stream.expected())
        found = Outcome(self._seed, seconds, verdict, self._kills, self._deeds, list(self._faults))
        found.mapped = sum(any(text for _, text in kill.committed.values()) for kill in self._kills)
        if verdict.lost or verdict.unknown or verdict.disordered:
            found.faults.append(str(verdict))
        kills = {kill.pid: kill for kill in self._kills}
        for record, finished in verdict.repeated.items():
            for span in finished[:-1]:
                self._explain(found, record, span, kills.get(span.pid))
        return found

    def _explain(self, found: Outcome, record: At, span: Span, kill: Kill | None) -> None:
        """Why what ``span`` finished had to be done again."""
        assert span.ended is not None
        if kill is None:
            found.faults.append(f"repeated, though nobody killed its process: {span}")
            return
        age = kill.at - span.ended
        found.ages.append(age)
        if kill.knew(record):
            found.faults.append(f"repeated, though it was committed: {span}")
        if age > self._within:
            found.faults.append(f"uncommitted {age:.2f} s after it was finished: {span}")


def main(arguments: list[str] | None = None) -> int:
    """Soak; 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m devtools.soak", description=__doc__)
    add = parser.add_argument
    add("seconds", type=float, nargs="?", default=600.0, help="how long (default: %(default)g)")
    add("--seed", type=int, default=None, help="of what happens when; told at the end")
    add("--rate", type=float, default=500.0, help="records a second (default: %(default)g)")
    options = parser.parse_args(arguments)
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    print(f"soak: {options.seconds:g} s, seed {seed}, in {directory}", flush=True)
    try:
        with Broker() as broker:
            found = Soak(broker.bootstrap, directory, seed, options.rate).run(options.seconds)
    except (BrokerError, ServiceError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    print(found)
    if found.faults:
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
