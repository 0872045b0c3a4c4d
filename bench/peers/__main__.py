"""``python -m bench.peers [--only NAME,…] [--records N] [--rounds N] [--restarts N]
[--replicas N …]``.

Prints Markdown on stdout and progress on stderr. ``--rounds 0`` or ``--restarts 0`` leaves
that part out; ``--keep DIR`` keeps logs and ledgers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers import restarts, speed
from bench.peers.catalogue import BASE, PEERS, Peer, install
from bench.tools import table
from devtools.broker import Broker


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("--only", type=_chosen, default=PEERS, metavar="NAME,…")
    parser.add_argument("--records", type=int, default=1_000_000, help="of 100 B; half of 1000 B")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep", type=Path, help="where logs and ledgers stay")
    return parser.parse_args(argv)


def _chosen(text: str) -> tuple[Peer, ...]:
    names = text.split(",")
    if unknown := sorted(set(names) - {peer.name for peer in PEERS}):
        raise argparse.ArgumentTypeError(
            f"no {', '.join(unknown)}; there are {', '.join(peer.name for peer in PEERS)}"
        )
    return tuple(peer for peer in PEERS if peer.name in names)


def run(argv: list[str]) -> None:
    """Install, measure, print."""
    options = _arguments(argv)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"peers {time.monotonic() - began:4.0f} s: {text}", file=sys.stderr, flush=True)

    errors = install(options.only)
    for name, error in errors.items():
        say(f"{name}: {error}")
    peers = [peer for peer in options.only if peer.directory not in errors]
    load, found = os.getloadavg()[0], {}
    outcomes: dict[int, dict[str, restarts.Outcome]] = {}
    with Broker() as broker, _directory(options.keep) as directory:
        if options.rounds:
            found = speed.compare(
                peers,
                broker.bootstrap,
                directory,
                records=options.records,
                rounds=options.rounds,
                say=say,
            )
        for replicas in options.replicas if options.restarts else ():
            outcomes[replicas] = restarts.compare(
                peers,
                broker.bootstrap,
                directory,
                restarts=options.restarts,
                replicas=replicas,
                say=say,
            )
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f} before\n")
    _print_settings(options.only, errors)
    if found:
        print(
            f"\nThroughput: medians of {options.rounds} rounds in turns, "
            f"{speed.PARTITIONS} partitions, a handler that does nothing, one at a time\n"
        )
        sizes = (f"{size} B: records/s" for size in speed.SIZES)
        head = [cell for size in sizes for cell in (size, f"ratio to {BASE}", "CPU µs")]
        table(("peer", *head, "RSS MB"), speed.rows(peers, found))
    for replicas, of_peers in outcomes.items():
        print(
            f"\nRestarts: {options.restarts} times TERM to one of {replicas} with handlers of "
            f"{restarts.WORK * 1000:.0f} ms, {restarts.RATE:.0f} records/s coming in\n"
        )
        head = ["lost", "repeated", "out of order", "exit codes", "longest to exit s", "gap s"]
        table(("peer", "records", *head), restarts.rows(peers, of_peers))
    _print_failures(found, outcomes)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="penstock-peers-") as name:
            yield Path(name)
    else:
        keep.mkdir(parents=True)
        yield keep.resolve()


def _print_settings(peers: tuple[Peer, ...], errors: dict[str, str]) -> None:
    rows = ((p.name, p.versions(), errors.get(p.directory, p.settings)) for p in peers)
    table(("peer", "versions", "settings"), rows)


def _print_failures(
    found: dict[tuple[str, int], list[speed.Speed | str]],
    outcomes: dict[int, dict[str, restarts.Outcome]],
) -> None:
    """The first line of every error, so that no row is empty without a reason."""
    failed = [
        f"{name}, {size} B: {run}"
        for (name, size), runs in found.items()
        for run in runs
        if isinstance(run, str)
    ]
    failed += [
        f"{name}, restarts of {replicas}: {got.error}"
        for replicas, of_peers in outcomes.items()
        for name, got in of_peers.items()
        if got.error
    ]
    if failed:
        print("\nFailed:\n")
        for text in failed:
            print(f"- {text.partition(chr(10))[0]}")


if __name__ == "__main__":
    run(sys.argv[1:])
