"""Getting a first connection: the client's constructor blocks, and a worker must not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import structlog

from penstock.error_text import said, traceback_of
from penstock.errors import CommitRefused, KafkaFailure, PenstockError
from penstock.kafka.port import Connect, Engine, Rebalance
from penstock.retry import Backoff

log = structlog.get_logger("penstock.worker")

_FIRST_TRY = 3.0
_LONGEST_TRY = 30.0
_BACKOFF = Backoff(first=0.5, limit=10.0)

#: What another try may mend. Anything else is a fault, and would come again for ever.
_PASSES = (CommitRefused, OSError)


class Connector:
    """Tries until a broker answers, somebody wants to leave, or a broker says no for good.

    Each try runs in a thread: the constructor cannot be interrupted, and a drain must not
    wait for it. A try that is abandoned holds nothing (no record was ever fetched) and ends
    with the process.
    """

    def __init__(self, connect: Connect, rebalance: Rebalance) -> None:
        self._connect = connect
        self._rebalance = rebalance
        self.failure: PenstockError | None = None

    def connect(self, wake: threading.Event, leaving: Callable[[], bool]) -> Engine | None:
        """An engine; or ``None`` with ``failure`` set, or ``None`` because of ``leaving``."""
        tried, timeout = 0, _FIRST_TRY
        while not leaving():
            engine, error = self._try(timeout, wake, leaving)
            if engine is not None:
                if tried:
                    log.info("connected", tries=tried + 1)
                return engine
            if isinstance(error, KafkaFailure):
                self.failure = error
                return None
            if error is None:
                return None
            if not isinstance(error, _PASSES):
                log.critical("a fault of Penstock's", exception=traceback_of(error))
                self.failure = PenstockError(f"making the Kafka client failed: {said(error)}")
                return None
            tried += 1
            # A slow broker (TLS, SASL, a far region) deserves more time at each try.
            timeout = min(_LONGEST_TRY, timeout * 2)
            delay = _BACKOFF.delay(tried, random.random)
            log.warning(
                "no broker answered; trying again",
                tries=tried,
                delay=round(delay, 1),
                error=str(error),
            )
            wake.clear()  # the try that just ended may have set it again
            if not leaving():
                wake.wait(delay)
        return None

    def _try(
        self, timeout: float, wake: threading.Event, leaving: Callable[[], bool]
    ) -> tuple[Engine | None, BaseException | None]:
        result: list[Engine | BaseException] = []

        def attempt() -> None:
            try:
                result.append(self._connect(self._rebalance, timeout))
            except BaseException as error:  # handed to the waiting thread
                result.append(error)
            wake.set()

        threading.Thread(target=attempt, name="kafka-connect", daemon=True).start()
        until = time.monotonic() + timeout + 30.0
        while not result and not leaving() and time.monotonic() < until:
            wake.wait(1.0)
            wake.clear()
        if not result:
            return None, None if leaving() else TimeoutError("the client did not come back")
        first = result[0]
        return (None, first) if isinstance(first, BaseException) else (first, None)
