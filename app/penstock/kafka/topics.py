"""What a consumer reads: topics by name, or whatever matches a pattern, now and later."""

from __future__ import annotations

import re
from typing import Any, Final

#: kafka-python's own test of a pattern, until ours is in its place: nothing.
_NOTHING: Final = r"(?!)"


class Topics:
    """The topics of one consumer.

    A pattern is a regular expression that must match the *whole* name, as in Java's client;
    kafka-python's own test would take ``orders`` for ``orders.dead``. Each update of the
    metadata (``PENSTOCK_METADATA_REFRESH``) may add topics and take some away. Kafka's
    internal ones never match, and topics that may not be described are not seen at all.

    Raises:
        re.error: the pattern is not a regular expression.
    """

    def __init__(self, names: tuple[str, ...], pattern: str | None) -> None:
        self.named = frozenset(names) if pattern is None else frozenset()
        self.pattern = pattern
        self._whole = None if pattern is None else _Whole(pattern)
        self._consumer: Any = None

    def subscribe(self, consumer: Any, listener: Any) -> None:
        """Subscribe ``consumer``; the metadata has to be updated afterwards."""
        self._consumer = consumer
        if self._whole is None:
            consumer.subscribe(topics=sorted(self.named), listener=listener)
        else:
            consumer.subscribe(pattern=_NOTHING, listener=listener)
            consumer._subscription.subscribed_pattern = self._whole  # noqa: SLF001 (see above)

    def now(self) -> frozenset[str]:
        """The topics that are subscribed at this moment."""
        if self._whole is None:
            return self.named
        return frozenset(self._consumer.subscription() or ())


class _Whole:
    """Stands in for a compiled pattern where kafka-python calls ``match``."""

    def __init__(self, pattern: str) -> None:
        self._fullmatch = re.compile(pattern).fullmatch

    def match(self, topic: str) -> object:
        return self._fullmatch(topic)
