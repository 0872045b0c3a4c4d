"""librdkafka's in-memory mock cluster, for machines without Java.

A fallback with limits, found by trying it (see `MockBroker`); what it says about rebalances,
sessions and transactions is not what Kafka would say.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from .errors import BrokerError, BrokerStartFailed

START_TIMEOUT = 20.0
"""Seconds until a start is given up; it takes a fraction of one."""

_METADATA_TIMEOUT = 10.0
_SOURCE_ROOT = Path(__file__).parents[2]


class MockBroker:
    """The mock cluster in a child process, with the smaller part of `Broker`'s interface.

    It lives as long as the client that carries it; the child ends with this process. Its limits:

    - kafka-python cannot negotiate versions with it: pass `api_version=(2, 3)`;
    - only one member per consumer group: with two, the follower's SyncGroup may be refused;
    - the first join of a group takes three seconds, and a `poll()` of kafka-python that ends within
      them may wedge its consumer: poll for longer than that until the first record;
    - topics are created by looking at them (four partitions), whatever a test wanted;
    - nothing is kept: `start()` after `stop()` is a new cluster on another port;
    - about 5 MB of memory per partition.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """Its address, as host:port.

        Raises:
            BrokerError: it is not running.
        """
        if not self.alive:
            raise BrokerError("the mock broker is not running")
        return self._bootstrap

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start it and return when it is ready; does nothing if it runs.

        Raises:
            BrokerStartFailed: it was not there within `timeout` seconds.
        """
        if self.alive:
            return
        self._child = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            cwd=_SOURCE_ROOT,  # with -c, where the child finds this package
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        told, _, _ = select.select([self._child.stdout], [], [], timeout)
        address = self._child.stdout.readline().strip() if told else ""
        if not address:
            self.stop()
            raise BrokerStartFailed(f"the mock broker was not ready after {timeout:g} s")
        self._bootstrap = address

    def stop(self) -> None:
        """End it; everything in it is lost."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def serve() -> None:
    """Carry a mock cluster until stdin ends; say its address on stdout. The child's main."""
    carrier = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    # The address in "bootstrap.servers" was a placeholder: the metadata holds the real one.
    (broker,) = carrier.list_topics(timeout=_METADATA_TIMEOUT).brokers.values()
    print(f"{broker.host}:{broker.port}", flush=True)
    sys.stdin.read()
    os._exit(0)  # there is nothing to flush, and librdkafka takes a second to find that out
