"""Records a second, CPU a record and memory, with a handler that does nothing."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.catalogue import BASE, Peer
from bench.peers.process import PeerError, Process
from bench.tools import fill
from devtools.broker import Admin

PARTITIONS = 12
SIZES = (100, 1000)
SECONDS = 3.0
WARM_UP = 1.0
_PATIENCE = 60.0
_SAMPLE = 0.025

_groups = itertools.count()


@dataclass(frozen=True)
class Speed:
    """One run: records a second, CPU µs a record, highest resident MB."""

    rate: float
    cpu: float
    memory: float


def compare(
    peers: Sequence[Peer],
    bootstrap: str,
    directory: Path,
    *,
    records: int,
    rounds: int,
    say: Callable[[str], None],
) -> dict[tuple[str, int], list[Speed | str]]:
    """All peers in turns, so that they see the same machine; an error's text where one failed."""
    found: dict[tuple[str, int], list[Speed | str]] = {}
    for size in SIZES:
        topic, total = f"backlog-{size}", records if size <= SIZES[0] else records // 2
        say(f"filling a topic with {total:,} records of {size} B")
        Admin(bootstrap).create_topic(topic, PARTITIONS)
        fill(bootstrap, topic, PARTITIONS, total, size)
        for number in range(rounds):
            for peer in peers:
                got = _attempt(peer, bootstrap, directory, topic, total)
                found.setdefault((peer.name, size), []).append(got)
                told = f"{got.rate:,.0f} records/s" if isinstance(got, Speed) else got
                say(f"{size} B, round {number + 1} of {rounds}, {peer.name}: {told}")
    return found


def _attempt(peer: Peer, bootstrap: str, directory: Path, topic: str, total: int) -> Speed | str:
    try:
        return _measure(peer, bootstrap, directory, topic, total)
    except (PeerError, OSError) as error:
        return str(error)


def _measure(peer: Peer, bootstrap: str, directory: Path, topic: str, total: int) -> Speed:
    group = f"speed-{next(_groups)}-{peer.name}"
    result = directory / f"{group}.result"
    samples: list[tuple[float, float, float]] = []
    process = Process(
        peer,
        directory / group,
        bootstrap=bootstrap,
        topic=topic,
        group=group,
        total=total,
        seconds=SECONDS,
        warm_up=WARM_UP,
        result=result,
    )

    def over() -> bool:
        if not samples or time.monotonic() - samples[-1][0] >= _SAMPLE:
            samples.append((time.monotonic(), *process.usage()))
        return result.exists()

    try:
        process.until(over, "result", _PATIENCE)
        samples.append((time.monotonic(), *process.usage()))
    finally:
        process.kill()  # what it would do when asked is the other table's question
    began, ended, count = map(float, result.read_text().split())
    return Speed(
        rate=count / (ended - began),
        cpu=(_cpu_at(samples, ended) - _cpu_at(samples, began)) / count * 1e6,
        memory=max(memory for _, _, memory in samples),
    )


def _cpu_at(samples: Sequence[tuple[float, float, float]], moment: float) -> float:
    """CPU seconds used by then, between the samples before and after it."""
    for (t0, c0, _), (t1, c1, _) in itertools.pairwise(samples):
        if t0 <= moment <= t1:
            return c0 + (c1 - c0) * (moment - t0) / (t1 - t0)
    return samples[-1][1]


def rows(
    peers: Sequence[Peer], found: dict[tuple[str, int], list[Speed | str]]
) -> list[tuple[str, ...]]:
    """A row a peer: rate, ratio to the bare kafka-python loop, CPU, for each size; memory."""
    table = []
    for peer in peers:
        cells: list[str] = []
        memory: list[float] = []
        for size in SIZES:
            runs = found.get((peer.name, size), [])
            good = [run for run in runs if isinstance(run, Speed)]
            if not good:
                cells += ["failed", "–", "–"]
                continue
            ratios = [
                run.rate / base.rate
                for run, base in zip(runs, found.get((BASE, size), []), strict=False)
                if isinstance(run, Speed) and isinstance(base, Speed)
            ]
            cells += [
                f"{statistics.median(run.rate for run in good):,.0f}",
                f"{statistics.median(ratios):.2f}" if ratios else "–",
                f"{statistics.median(run.cpu for run in good):.1f}",
            ]
            memory += [run.memory for run in good]
        table.append((peer.name, *cells, f"{max(memory):.0f}" if memory else "–"))
    return table
