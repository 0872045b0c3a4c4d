"""Work for a service, and the proof of how it was done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devtools.checker import Report, check
from devtools.service import Service
from devtools.stream import Stream


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a ledger: a record, and the process that handled it."""

    partition: int
    sequence: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What handlers wrote down (``devtools.apps.ledger``)."""

    path: Path

    def rows(self) -> list[Row]:
        """Every record handled, in the order of handling."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        fields = (line.split() for line in lines)
        return [Row(int(f[0]), int(f[1]), int(f[3])) for f in fields if len(f) == 5]

    def count(self) -> int:
        """How many lines there are."""
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def distinct(self) -> int:
        """How many different records were handled."""
        return len({(row.partition, row.sequence) for row in self.rows()})

    def repeated(self) -> dict[tuple[int, int], list[int]]:
        """Records handled more than once: (partition, sequence) → pids in order."""
        pids: dict[tuple[int, int], list[int]] = {}
        for row in self.rows():
            pids.setdefault((row.partition, row.sequence), []).append(row.pid)
        return {record: found for record, found in pids.items() if len(found) > 1}


@dataclass(frozen=True, slots=True)
class Trap:
    """The file that tells ``devtools.apps.mischief`` what to do at which record."""

    path: Path

    def set(self, partition: int, sequence: int, deed: str, seconds: float = 0) -> None:
        """Have the handler do ``deed`` after it noted this record."""
        self.path.write_text(f"{partition} {sequence} {deed} {seconds}")

    def spring(self) -> None:
        """No more of it; a handler that does ``wait`` returns."""
        self.path.unlink(missing_ok=True)


class Load:
    """A stream of records for a service, counted in its ledger."""

    def __init__(
        self, service: Service, ledger: Ledger, bootstrap: str, *, partitions: int, rate: float
    ) -> None:
        topic = str(service.settings["topics"])
        self.service = service
        self.ledger = ledger
        self.stream = Stream(bootstrap, topic, partitions, rate=rate)

    def start(self) -> Load:
        """Start the stream; returns when the service is at work on it."""
        self.stream.start()
        self.until_more(50)
        return self

    def until_more(self, count: int, timeout: float = 30.0) -> None:
        """Wait until ``count`` more records are handled."""
        goal = self.ledger.count() + count
        self.service.until(lambda: self.ledger.count() >= goal, f"{count} more records", timeout)

    def until_handled(self, total: int, timeout: float = 60.0) -> None:
        """Wait until ``total`` different records are handled."""
        self.service.until(
            lambda: self.ledger.count() >= total and self.ledger.distinct() >= total,
            f"{total} records handled",
            timeout,
        )

    def report(self) -> Report:
        """End the stream, let the service catch up and stop, and compare.

        A service that is not running is started for it, as its platform would.
        """
        expected = self.service.directory / "expected"
        total = self.stream.stop(expected)
        if not self.service.running:
            self.service.start().until_ready()
        self.until_handled(total)
        code = self.service.stop()
        if code != 0:
            raise AssertionError(f"exit {code} at the end\n{self.service.log_tail()}")
        return check(expected, [self.ledger.path])
