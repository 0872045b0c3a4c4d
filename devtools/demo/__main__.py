"""``python -m devtools.demo``: the story, in order."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from devtools.broker import BrokerError
from devtools.service import Service, ServiceError
from devtools.stream import Stream

from .cluster import Cluster, open_cluster
from .narrator import Narrator
from .platform import WAYS, Platform, UnexpectedExit
from .verdict import EXPECTED, LEDGER, judge, write_endings

_IDLE = 20.0  # seconds without a handled order: what is missing now will not come
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 if the promise was kept, 1 if not, 130 if interrupted."""
    options = _parse(arguments)
    narrator = Narrator()
    if options.verdict is not None:
        return _judge(options.verdict, narrator)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    directory = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    limits, code = "", 1
    try:
        limits = _play(options, directory, narrator)
        code = _judge(directory, narrator, limits)
    except KeyboardInterrupt:
        code = _INTERRUPTED
        narrator.conclude("interrupted: everything that was started has ended", good=False)
    except (BrokerError, ServiceError, UnexpectedExit, subprocess.TimeoutExpired) as error:
        narrator.conclude(f"the demo failed: {error}", good=False)
    if code == 1 or options.keep:
        print(f"logs, ledger and exit records: {directory}")
        print(f"judge them again: python -m devtools.demo --verdict {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return code


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devtools.demo", description=__doc__)
    add = parser.add_argument
    add("--rate", type=float, help="orders a second (default: 600; 300 on a mock cluster)")
    add("--seconds", type=float, default=4.0, help="of load before each restart (%(default)g)")
    add("--mock", action="store_true", help="use librdkafka's mock cluster, not Kafka")
    add("--keep", action="store_true", help="keep the logs even if all went well")
    add("--verdict", type=Path, metavar="DIRECTORY", help="judge an earlier run again")
    return parser.parse_args(arguments)


def _play(options: argparse.Namespace, directory: Path, narrator: Narrator) -> str:
    """Load, restarts, end. Leaves the evidence in ``directory``; returns the cluster's limits."""
    say = narrator.say
    with ExitStack() as stack:
        given = os.environ.get("PENSTOCK_BOOTSTRAP_SERVERS", "")
        cluster = open_cluster(stack, say, given=given, mock=options.mock)
        rate = options.rate or cluster.rate
        stream = Stream(cluster.bootstrap, cluster.topic, cluster.partitions, rate=rate)
        stack.callback(stream.close)
        service = _service(cluster, directory)
        stack.callback(service.close)

        stream.start()
        say(f"orders: {rate:g} a second, numbered, from now to the end")
        platform = Platform(service)
        workers = service.settings["workers"]
        say(f"penstock run {service.target} (PENSTOCK_WORKERS={workers})")
        platform.start()
        say(f"ready, pid {service.pid}")
        for way in WAYS:
            _load(service, directory / LEDGER, options.seconds)
            say(f"{_noted(directory / LEDGER)} orders handled. Restart: {way.command}")
            ending = platform.restart(way)
            drain = "?" if ending.drain_seconds is None else f"{ending.drain_seconds:.2f} s"
            say(f"  exit {ending} after a drain of {drain}; started again, ready")
            write_endings(directory, platform.endings)
        _load(service, directory / LEDGER, options.seconds)
        total = stream.stop(directory / EXPECTED)
        say(f"no more orders: {total} were sent and confirmed; waiting for the last")
        _catch_up(directory / LEDGER, total)
        ending = platform.stop()
        say(f"kill -TERM: exit {ending}")
        write_endings(directory, platform.endings)
    return cluster.limits


def _service(cluster: Cluster, directory: Path) -> Service:
    return Service(
        "examples.orders:app",
        directory,
        env={"LEDGER": str(directory / LEDGER)},
        bootstrap_servers=cluster.bootstrap,
        topics=cluster.topic,
        group_id=cluster.topic,
        control_token=None,  # the service makes one, and the commands find it, as on a host
        **cluster.settings,
    )


def _load(service: Service, ledger: Path, seconds: float) -> None:
    """Let the service work for so long; it must be seen to."""
    before, until = _noted(ledger), time.monotonic() + seconds
    service.until(
        lambda: time.monotonic() >= until and _noted(ledger) > before,
        "handled orders",
        60 + seconds,
    )


def _catch_up(ledger: Path, total: int) -> None:
    """Until every order is noted, or none has been for a while: then the verdict will tell."""
    noted, since = _noted(ledger), time.monotonic()
    while noted < total and time.monotonic() - since < _IDLE:
        time.sleep(0.05)  # the poll interval of a wait on a condition
        if (now := _noted(ledger)) != noted:
            noted, since = now, time.monotonic()


def _noted(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def _judge(directory: Path, narrator: Narrator, limits: str = "") -> int:
    try:
        verdict = judge(directory)
    except (OSError, ValueError, TypeError) as error:
        narrator.conclude(f"no verdict: {error}", good=False)
        return 1
    narrator.show(verdict.table)
    if verdict.problems:
        narrator.conclude("FAILED\n  " + "\n  ".join(verdict.problems), good=False)
        return 1
    if limits:
        narrator.show(limits)
    narrator.conclude("Kept: every order handled once, in order, across every restart.", good=True)
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the demo; while it ends what it started, a second Ctrl-C must not leave half behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
