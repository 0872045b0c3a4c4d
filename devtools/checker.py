"""Reads only what handlers wrote, and tells what was lost, repeated or out of order.

``python -m devtools.checker EXPECTED LEDGER…`` exits 0 only if nothing was. ``EXPECTED`` has a
line ``partition count`` each; a ledger line begins with ``partition sequence``.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Report:
    """``lost``, ``repeated`` and ``disordered`` are counts of records."""

    expected: int
    handled: int
    lost: int
    repeated: int
    disordered: int
    unknown: int

    @property
    def perfect(self) -> bool:
        """Every record exactly once, in order."""
        return not (self.lost or self.repeated or self.disordered or self.unknown)

    def __str__(self) -> str:
        return (
            f"expected {self.expected}, handled {self.handled}, lost {self.lost}, "
            f"repeated {self.repeated}, out of order {self.disordered}, unknown {self.unknown}"
        )


def check(expected: Path, ledgers: list[Path]) -> Report:
    """Compare. Order is that of the lines of all ledgers taken together by time of writing.

    With several ledgers the lines are merged by their last field, the monotonic time.
    A record out of order is one whose first handling comes after that of a later one in its
    partition; repetitions do not count as disorder.
    """
    counts = {
        int(p): int(n)
        for p, n in (line.split() for line in expected.read_text().splitlines() if line)
    }
    rows = [
        (int(f[0]), int(f[1]), float(f[4]))
        for ledger in ledgers
        for line in ledger.read_text().splitlines()
        if len(f := line.split()) == 5  # a torn last line has fewer
    ]
    rows.sort(key=lambda row: row[2])
    seen: Counter[tuple[int, int]] = Counter()
    highest: dict[int, int] = {}
    disordered = unknown = 0
    for partition, sequence, _ in rows:
        if not 0 <= sequence < counts.get(partition, 0):
            unknown += 1
            continue
        seen[partition, sequence] += 1
        if seen[partition, sequence] == 1:
            if sequence < highest.get(partition, -1):
                disordered += 1
            highest[partition] = max(sequence, highest.get(partition, -1))
    total = sum(counts.values())
    return Report(
        expected=total,
        handled=len(rows),
        lost=total - len(seen),
        repeated=sum(seen.values()) - len(seen),
        disordered=disordered,
        unknown=unknown,
    )


def main(argv: list[str]) -> int:
    """Print the report; 0 if perfect."""
    report = check(Path(argv[0]), [Path(a) for a in argv[1:]])
    print(report)
    return 0 if report.perfect else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
