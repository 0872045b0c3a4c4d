"""What a handler receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Partition(NamedTuple):
    """A topic and a partition number. Prints as ``orders[3]``."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Record(NamedTuple):
    """One Kafka record, bytes as they are on the wire.

    ``timestamp`` is in milliseconds since the epoch; ``headers`` is a sequence of
    ``(name, value)`` in the order they were sent, names may repeat; ``key`` and ``value``
    are ``None`` where the record has none (a ``None`` value is a tombstone).
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


def printable(key: bytes | None) -> str | None:
    """A record's key for people: text if it is text, else hex."""
    if key is None:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return "0x" + key.hex()
    return text if text.isprintable() else "0x" + key.hex()
