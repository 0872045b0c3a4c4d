"""What several scenarios need: reading ledgers, and looking at how a service failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from devtools.checker import Report, check
from devtools.service import Service
from devtools.stream import Stream

Make = Callable[..., Service]

QUICK_SESSION: dict[str, object] = {"session_timeout": 6, "heartbeat_interval": 1.5}
"""Settings under which a member that is gone is given up soon."""


def lines(ledger: Path) -> int:
    """How many records the handlers noted so far."""
    return ledger.read_text().count("\n") if ledger.exists() else 0


def rows(ledger: Path) -> list[tuple[int, int, int]]:
    """``(partition, offset, pid)`` of every note, in the order of writing."""
    found = []
    for line in ledger.read_text().splitlines():
        fields = line.split()
        if len(fields) == 5:
            found.append((int(fields[0]), int(fields[2]), int(fields[3])))
    return found


def handled(ledger: Path, total: int) -> bool:
    """Whether so many *different* records are noted (repeats do not count)."""
    if lines(ledger) < total:
        return False
    return len({(partition, offset) for partition, offset, _ in rows(ledger)}) >= total


def until(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """Wait for something that is not about one service."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout} s"
        time.sleep(0.02)  # the poll interval of a wait on a condition


def until_handled(service: Service, ledger: Path, more: int, timeout: float = 60.0) -> None:
    """Wait until ``more`` further records are noted."""
    before = lines(ledger)
    service.until(lambda: lines(ledger) >= before + more, f"{more} more records", timeout)


def until_all_handled(service: Service, ledger: Path, total: int, stall: float = 30.0) -> None:
    """Wait until ``total`` different records are noted; give up when none is for ``stall`` s.

    How long a backlog takes is the machine's business, that it goes on is ours.
    """
    while not handled(ledger, total):
        before = lines(ledger)
        service.until(
            lambda before=before: lines(ledger) > before or handled(ledger, total),  # type: ignore[misc]
            f"more records ({before} lines of {total})",
            stall,
        )


def finish(
    stream: Stream, services: Iterable[Service], tmp_path: Path, timeout: float = 60.0
) -> Report:
    """Stop the stream, let it all be handled, stop the services (code 0), and check."""
    expected, ledger = tmp_path / "expected", tmp_path / "ledger"
    total = stream.stop(expected)
    running = list(services)
    try:
        until_all_handled(running[0], ledger, total, timeout)
    except Exception as error:
        raise AssertionError(f"{check(expected, [ledger])}\n{error}") from error
    for service in running:
        assert service.stop() == 0
    return check(expected, [ledger])


def assert_failed(service: Service, code: int, *needles: str, timeout: float = 60.0) -> None:
    """It ends with this code; log, termination message and journal say why, in a sentence."""
    assert service.wait(timeout) == code, service.log_tail()
    record = service.exit_record()
    assert (record["code"], record["planned"]) == (code, False)
    journal = (service.directory / "state" / "journal.jsonl").read_text()
    for needle in needles:
        assert needle in record["reason"], record
        assert needle in journal
        assert any(needle in str(line.get("reason", "")) for line in service.log_lines("exit"))
