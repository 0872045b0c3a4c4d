"""Where a worker's time goes: the lines that hold the GIL, sampled a hundred times a second.

By py-spy, from another process. A thread of the worker itself could only look when it is given
the GIL, which is when another thread lets go of it: it would blame the system calls, and never
see the lines between them.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.environment import CACHE, make
from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service

TOTAL = 300_000
WAITING_TOTAL = 100_000
PARTITIONS = 12
TOP = 6
#: How each is shown, how many handlers it runs at once, and how many seconds they wait.
WAYS = {
    "records": ("Record, by partition", 1, 0.0),
    "by_key": ("Record, by key, 4 threads", 4, 0.0),
    "async_by_key": ("async, Record, by key, 256 at once", 256, 0.0),
    "async_sleeping": ("async, Record, by key, 256 at once, 10 ms each", 256, 0.01),
}
#: Whose a line is; of the standard library, but for asyncio, its caller's.
_PARTS = {
    "kafka/": "kafka-python",
    "asyncio/": "asyncio",
    "bench/": "handler",
    "penstock/kafka/": "penstock: engine",
    "penstock/telemetry/": "penstock: metrics",
    "penstock/worker/": "penstock: runners, poll loop",
    "penstock/board": "penstock: board",
    "penstock/": "penstock: desk, lanes, offsets",
}
#: A second. Each sample stops the worker for up to a millisecond: a thousand made it twenty times
#: slower, and showed what a worker does that mostly waits.
_RATE = 100
_PLACE = CACHE / "profiler"
_FRAME = re.compile(r"(?P<name>.+) \((?P<file>.+):(?P<line>\d+)\)$")


@dataclass
class Profile:
    """Samples by thread, by part, by innermost line, and by the innermost line of our own."""

    total: int = 0
    threads: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, text: str) -> Profile:
        """From py-spy's raw form: ``thread;outermost;…;innermost count``."""
        profile = cls()
        for row in text.splitlines():
            stack, _, number = row.rpartition(" ")
            frames, samples = stack.split(";"), int(number)
            profile.total += samples
            thread = re.sub(r'^thread \(.*\): |[\d"-]+$|^.*"', "", frames[0]) or frames[0]
            profile.threads[thread] += samples
            profile.parts[_part(frames)] += samples
            profile.lines[_shown(frames[-1])] += samples
            own = next((f for f in reversed(frames) if "penstock/" in f), None)
            if own is not None:
                profile.ours[_shown(own)] += samples
        return profile


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for start, part in _PARTS.items():
            if f"({start}" in frame:
                return part
    return "else"


def _shown(frame: str) -> str:
    match = _FRAME.match(frame)
    if match is None:
        return frame
    file = "/".join(Path(match["file"]).parts[-2:])
    return f"{file}:{match['line']} {match['name']}"


def main() -> None:
    """Print the lines on which most samples fell, for each way of handling."""
    if error := make(_PLACE, Path(__file__).with_name("profiler.txt")):
        raise RuntimeError(f"py-spy {error}")
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        Admin(broker.bootstrap).create_topic("bench", PARTITIONS)
        fill(broker.bootstrap, "bench", PARTITIONS, TOTAL, 100, keys=1000)
        for way, (title, concurrency, work) in WAYS.items():
            text = profiled(broker.bootstrap, way, concurrency, work, directory)
            profile = Profile.read(text)
            print(f"### {title}\n\n{profile.total:,} samples")
            print("- by thread:", _shares(profile.threads.most_common(4), profile.total))
            print("- by part:", _shares(profile.parts.most_common(), profile.total))
            for what, lines in (("line", profile.lines), ("line of ours", profile.ours)):
                print()
                table(
                    (what, "share"),
                    (
                        (f"`{line}`", f"{n / profile.total:.1%}")
                        for line, n in lines.most_common(TOP)
                    ),
                )
            print()


def _shares(counts: list[tuple[str, int]], total: int) -> str:
    return ", ".join(f"{what} {number / total:.0%}" for what, number in counts)


def profiled(bootstrap: str, way: str, concurrency: int, work: float, directory: Path) -> str:
    """What py-spy wrote about the worker, from its being ready until the last record."""
    result, raw = directory / way, directory / f"{way}.py-spy"
    service = Service(
        f"bench.apps:{way}",
        directory / f"service-{way}",
        env={
            "BENCH_TOTAL": str(WAITING_TOTAL if work else TOTAL),
            "BENCH_RESULT": str(result),
            "BENCH_CONCURRENCY": str(concurrency),
            "BENCH_WORK": str(work),
        },
        bootstrap_servers=bootstrap,
        topics="bench",
        group_id=f"profile-{way}",
    )
    with service:
        service.until_ready(60)  # what it imports and connects to is over by then
        (worker,) = service.workers()
        command = [
            str(_PLACE / "bin" / "py-spy"),
            *("record", "--gil", "--threads", "--format", "raw", "--rate", str(_RATE)),
            *("--duration", "600", "--output", str(raw), "--pid", str(worker)),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as spy:
            try:
                service.until(lambda: result.exists() or spy.poll() is not None, "all records", 180)
            finally:
                spy.send_signal(signal.SIGINT)  # it writes what it has, and goes
                told, _ = spy.communicate(timeout=60)
        service.stop()
    if not raw.exists():
        raise RuntimeError(f"py-spy: {told.decode(errors='replace').strip()}")
    return raw.read_text()
