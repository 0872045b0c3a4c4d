"""Keeps what the client fetches, and puts aside, within ``PENSTOCK_FETCH_BYTES``.

kafka-python bounds a response (50 MB, for each broker) and a partition's part of it (1 MB), and
asks for a partition again only when its last part was handed over. Parts of partitions that are
paused are put aside, and those of the others come meanwhile: so what it holds grows with the
number of partitions, to 60 MB beside a full buffer with 60 of them. A partition's part that is
smaller the more there are bounds the sum, whatever the number of brokers.
"""

from __future__ import annotations

from typing import Any

from penstock.memory import share


class Fetching:
    """Over one consumer. Called on either thread: it only ever writes one number."""

    def __init__(self, consumer: Any, fetch_bytes: int) -> None:
        self._options = consumer._fetcher.config  # noqa: SLF001 (read for each request)
        self._subscription = consumer._subscription  # noqa: SLF001 (assignment() copies it all)
        self._fetch_bytes = fetch_bytes
        #: What the options want at the most.
        self._part: int = self._options["max_partition_fetch_bytes"]
        self._partitions = 0

    def fit(self) -> None:
        """Bring the size of the parts in line with the number of partitions."""
        partitions = len(self._subscription.assignment)
        if partitions != self._partitions:
            self._partitions = partitions
            part = min(self._part, share(self._fetch_bytes, partitions))
            self._options["max_partition_fetch_bytes"] = part
