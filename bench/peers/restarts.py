"""What is lost, repeated or out of order over restarts by TERM, under load.

The stream brings more than the handlers can do, so that every TERM comes while records wait in
every buffer there is. With several replicas they are restarted one at a time, as a rolling
update does it. After the last TERM the app runs once more without the work, until its group has
committed all there is and the ledger stands still.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.catalogue import Peer
from bench.peers.process import PeerError, Process
from devtools.broker import Admin, BrokerError
from devtools.checker import Report, check
from devtools.stream import Stream

PARTITIONS = 12
RATE = 500.0
WORK = 0.005
GRACE = 30.0
LANES = 3
"""Peers at a time: what they do here is mostly to sleep."""

_BUSY = (0.5, 2.5)
"""Seconds of work between the first record of a process and the next TERM."""
_PATIENCE = 60.0
_CATCH_UP = 120.0
_STILL = 2.0


@dataclass
class Outcome:
    """What a peer's restarts came to."""

    produced: int = 0
    report: Report | None = None
    left: int = 0
    """Records that the group had not committed when the wait for it was over."""
    codes: list[str] = field(default_factory=list)
    longest: float = 0.0
    """Seconds from a TERM to the exit."""
    gap: float = 0.0
    """Seconds in which no record was handled, by any replica."""
    error: str = ""


def compare(
    peers: Sequence[Peer],
    bootstrap: str,
    directory: Path,
    *,
    restarts: int,
    replicas: int,
    say: Callable[[str], None],
) -> dict[str, Outcome]:
    """By peer; one that fails does not stop the others."""

    def one(peer: Peer) -> Outcome:
        run = _Run(peer, bootstrap, directory / f"restarts-{replicas}-{peer.name}", replicas)
        try:
            run.all(restarts)
        except (PeerError, BrokerError, OSError, RuntimeError) as error:
            run.outcome.error = str(error)
        finally:
            run.close()
        got = run.outcome
        say(f"restarts of {replicas}, {peer.name}: {got.report or ''} {got.error}")
        return got

    with ThreadPoolExecutor(LANES) as lanes:
        return dict(zip((p.name for p in peers), lanes.map(one, peers), strict=True))


class _Run:
    """One peer's ordeal."""

    def __init__(self, peer: Peer, bootstrap: str, directory: Path, replicas: int) -> None:
        directory.mkdir()
        self.outcome = Outcome()
        self._peer = peer
        self._bootstrap = bootstrap
        self._directory = directory
        self._replicas = replicas
        self._topic = f"orders-{replicas}-{peer.name}"
        self._admin = Admin(bootstrap)
        self._admin.create_topic(self._topic, PARTITIONS)
        self._ledger = directory / "ledger"
        self._ledger.touch()
        self._stream = Stream(bootstrap, self._topic, PARTITIONS, rate=RATE)
        self._processes: list[Process] = []

    def all(self, restarts: int) -> None:
        """Start, restart, catch up, check."""
        pauses = random.Random(4)  # the same ones for each peer
        expected = self._directory / "expected"
        self._stream.start()
        for number in range(self._replicas):
            self._start(number)
        for number in range(restarts):
            time.sleep(pauses.uniform(*_BUSY))
            self._terminate(self._processes.pop(0))
            if number < restarts - self._replicas:  # the last ones make room for the catching up
                self._start(number + self._replicas)
        for process in self._processes:
            process.kill()
        # Before it catches up: with nobody left, that begins with a gap of the bench's making.
        self.outcome.gap = _longest_gap(self._ledger)
        self.outcome.produced = self._stream.stop(expected)

        self._catch_up(self._launch("last", work=0))
        if self.outcome.left:  # what nobody committed is not lost, only late
            done = self._admin.committed_offsets(self._topic, self._topic)
            expected.write_text("".join(f"{p} {n}\n" for p, n in sorted(done.items())))
        self.outcome.report = check(expected, [self._ledger])

    def close(self) -> None:
        """End what is left of it."""
        self._stream.close()
        for process in self._processes:
            process.kill()

    def _launch(self, name: str, work: float) -> Process:
        process = Process(
            self._peer,
            self._directory / name,
            bootstrap=self._bootstrap,
            topic=self._topic,
            group=self._topic,
            ledger=self._ledger,
            work=work,
        )
        self._processes.append(process)
        return process

    def _start(self, number: int) -> None:
        """Start one, and wait until it has handled something."""
        size = self._ledger.stat().st_size
        process = self._launch(str(number), WORK)
        process.until(
            lambda: not process.family().isdisjoint(_writers(self._ledger, size)),
            "record",
            _PATIENCE,
        )

    def _terminate(self, process: Process) -> None:
        by_itself = not process.running
        code, took = process.terminate(GRACE)
        if by_itself:
            self.outcome.codes.append(f"{code} by itself")
        elif took >= GRACE:
            self.outcome.codes.append(f"killed after {GRACE:g} s")
        else:
            self.outcome.codes.append(str(code))
        self.outcome.longest = max(self.outcome.longest, took)

    def _catch_up(self, process: Process) -> None:
        """Wait for it; offsets are the stream's numbers, for nobody else writes to the topic."""
        deadline = time.monotonic() + _CATCH_UP
        size, changed = -1, time.monotonic()
        while True:
            now = time.monotonic()
            if self._ledger.stat().st_size != size:
                size, changed = self._ledger.stat().st_size, now
            done = self._admin.committed_offsets(self._topic, self._topic)
            self.outcome.left = sum(
                count - done.get(number, 0) for number, count in enumerate(self._stream.confirmed)
            )
            if (not self.outcome.left and now - changed >= _STILL) or now > deadline:
                return
            if not process.running:
                raise PeerError(f"exit {process.code} before it had caught up")
            time.sleep(0.5)


def _writers(ledger: Path, start: int) -> set[int]:
    """Pids of the lines after ``start`` bytes."""
    with ledger.open("rb") as file:
        file.seek(start)
        lines = (line.split() for line in file.read().splitlines())
        return {int(fields[3]) for fields in lines if len(fields) == 5}


def _longest_gap(ledger: Path) -> float:
    times = sorted(float(line.split()[4]) for line in ledger.read_text().splitlines())
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def rows(peers: Sequence[Peer], outcomes: dict[str, Outcome]) -> list[tuple[str, ...]]:
    """A row a peer."""
    table: list[tuple[str, ...]] = []
    for peer in peers:
        got = outcomes[peer.name]
        codes = ", ".join(f"{code} ×{n}" for code, n in Counter(got.codes).items())  # noqa: RUF001
        end = codes or "–", f"{got.longest:.1f}"
        if got.report is None:
            table.append((peer.name, "failed", "–", "–", "–", *end, "–"))
            continue
        report = got.report
        late = f" ({got.left:,} not caught up with)" if got.left else ""
        counts = report.lost, report.repeated, report.disordered
        table.append(
            (peer.name, f"{got.produced:,}{late}", *map(str, counts), *end, f"{got.gap:.1f}")
        )
    return table
