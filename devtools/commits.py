"""What a group has committed, the text beside each offset included.

Not by librdkafka: of metadata that it read it copies the bytes and forgets where they end
(``rd_kafka_topic_partition_copy``, 2.16), so that a caller gets them with whatever follows in
memory.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka import errors as k

_TIMEOUT = 20.0


class Commits:
    """Reads commits, over a connection that is kept open."""

    def __init__(self, bootstrap: str) -> None:
        self._client = KafkaAdminClient(bootstrap_servers=bootstrap)

    def of(self, group: str, topic: str) -> dict[int, tuple[int, str]]:
        """Offset and metadata of each partition that has a commit."""
        until = time.monotonic() + _TIMEOUT
        while True:
            try:
                found = self._client.list_group_offsets([group])[group]
                break
            except k.RetriableError:  # the coordinator is loading, or has moved
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)  # the poll interval of a wait on a condition
        return {
            tp.partition: (at.offset, at.metadata or "")
            for tp, at in found.items()
            if tp.topic == topic and at.offset >= 0
        }

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
