"""How large a batch is that a ``list[…]`` handler is given, and when it is full. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from penstock import arguments
from penstock.record import Record


@dataclass(frozen=True, slots=True)
class Batch:
    """The bounds of a batch; whichever is met first hands it over.

    ``count`` records; ``bytes`` of keys and values (a record that is larger by itself makes a
    batch of one); ``wait`` seconds since its first record arrived (0: whatever is there).

    Raises:
        ConfigError: a bound that no batch can keep.
    """

    count: int = 500
    bytes: int = 16_000_000
    wait: float = 0.0

    def __post_init__(self) -> None:
        arguments.whole("Batch", "count", self.count)
        arguments.whole("Batch", "bytes", self.bytes)
        arguments.seconds("Batch", "wait", self.wait, zero=True)

    def take(self, waiting: Iterable[Record]) -> tuple[int, bool]:
        """``(records of the next batch, whether it is full)`` from those that wait."""
        taken = held = 0
        for record in islice(waiting, self.count):
            held += size_of(record)
            if taken and held > self.bytes:
                return taken, True
            taken += 1
        return taken, taken >= self.count or held >= self.bytes


def size_of(record: Record) -> int:
    """Bytes that a record holds in memory: its key and its value."""
    return len(record.key or b"") + len(record.value or b"")
