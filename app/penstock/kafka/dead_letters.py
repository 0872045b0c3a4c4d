"""Sends dead letters: one thread, so that nothing of it blocks handlers or the poll loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final

import structlog

from penstock.errors import NotSent, PenstockError, TooLarge, Unconfirmed
from penstock.kafka.producer import Outgoing, Producer
from penstock.letters import Detail, Letter, headers
from penstock.settings import Settings
from penstock.watched import Ended, watched

log = structlog.get_logger("penstock.kafka")

Done = Callable[[Exception | None], None]

#: Seconds to find a broker, and for a try to be confirmed. The caller tries again.
_CONNECT: Final = 5.0
_TRY: Final = 10.0
#: Letters of one try: whoever posted the first is not told only when the last has gone, too.
_MOST: Final = 1_000
#: Seconds between looks at topics that are missing, or that nothing is known of yet.
_LOOK_SOON: Final = 5.0


class _Posted:
    """A letter with the caller's wish to know."""

    __slots__ = ("detail", "done", "letter")

    def __init__(self, letter: Letter, done: Done) -> None:
        self.letter = letter
        self.done = done
        self.detail = Detail.FULL

    def outgoing(self) -> Outgoing:
        letter = self.letter
        record = letter.record
        return Outgoing(letter.topic, record.key, record.value, headers(letter, self.detail))

    def over(self, error: Exception | None, ended: Ended) -> None:
        try:
            self.done(error)
        except Exception as raised:  # the caller's own; the others still have to be told
            ended(threading.current_thread().name, raised)


class DeadLetters:
    """Dead letters on their way to the broker.

    The connection is made by the thread, at the start, so that a topic that is missing is known
    before the first letter. Each letter is tried once, within a few seconds; trying again is the
    caller's. One that is too large is sent without its traceback, then with a short reason.
    Beside what the caller holds, nothing bounds the queue: every letter in it is a record that
    waits in the worker's (bounded) buffer.
    """

    def __init__(self, settings: Settings, topics: Collection[str], ended: Ended) -> None:
        """``ended`` is told when the thread cannot go on: nothing can be sent any more."""
        self._settings = settings
        self._topics = frozenset(topics)
        self._missing: frozenset[str] = frozenset()
        self._refused: frozenset[str] = frozenset()
        self._look_at = 0.0  # at once
        self._unreachable = False
        self._producer: Producer | None = None
        self._queue: deque[_Posted] = deque()
        self._changed = threading.Condition()
        self._until: float | None = None  # set: closing
        self._ended = ended
        self._thread = threading.Thread(
            target=watched(self._run, self._is_closing, ended), name="dead-letters", daemon=True
        )

    def start(self) -> None:
        """Start the thread. Letters may be posted before."""
        self._thread.start()

    def post(self, letter: Letter, done: Done) -> None:
        """Send ``letter``. From any thread; never blocks.

        ``done`` is called from the sending thread: with ``None`` once the broker confirmed the
        letter (acks=all), else with an error whose text names the topic and the remedy. After
        :meth:`close` it is called at once, with an error.
        """
        posted = _Posted(letter, done)
        with self._changed:
            if self._until is None:
                self._queue.append(posted)
                self._changed.notify()
                return
        posted.over(_closed(letter), self._ended)

    def missing(self) -> frozenset[str]:
        """Dead-letter topics that the cluster does not have, as far as is known."""
        return self._missing

    def refused(self) -> frozenset[str]:
        """Dead-letter topics that this principal may not write to, as far as is known."""
        return self._refused

    def close(self, timeout: float) -> None:
        """Send what is posted, for at most ``timeout`` seconds, and end the thread.

        Letters that are not confirmed by then fail. Returns soon after ``timeout`` even if no
        broker answers.
        """
        with self._changed:
            self._until = time.monotonic() + timeout
            self._changed.notify()
        if self._thread.ident is None:  # never started: nobody else will tell
            self._fail_rest()
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            if (producer := self._producer) is not None:
                producer.abandon()
            self._thread.join(1.0)

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (posted := self._take()) is not None:
                if posted:
                    self._deliver(posted)
                if time.monotonic() >= self._look_at and self._until is None:
                    self._look()
        finally:  # also when a fault of ours ends it: records must not wait in silence
            with self._changed:
                if self._until is None:
                    self._until = 0.0
            self._fail_rest()
            self._disconnect()

    def _is_closing(self) -> bool:
        return self._until is not None

    def _take(self) -> list[_Posted] | None:
        """What is posted; nothing when it is time to look at the topics; ``None``: end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue or self._until is not None,
                max(0.0, self._look_at - time.monotonic()),
            )
            if self._until is not None and (not self._queue or time.monotonic() >= self._until):
                return None
            return [self._queue.popleft() for _ in range(min(_MOST, len(self._queue)))]

    def _deliver(self, posted: list[_Posted]) -> None:
        """One try for each; those that are too large get two more, in fewer words."""
        while posted:
            outcomes = self._try(posted)
            again = []
            for each, outcome in zip(posted, outcomes, strict=True):
                if isinstance(outcome, TooLarge) and each.detail is not Detail.SHORT:
                    each.detail = Detail(each.detail + 1)
                    again.append(each)
                else:
                    each.over(outcome, self._ended)
            posted = again

    def _try(self, posted: list[_Posted]) -> Iterable[Exception | None]:
        until = time.monotonic() + _TRY
        if self._until is not None:
            until = min(until, self._until)
        try:
            producer = self._connect(until)
            outcomes = producer.send((each.outgoing() for each in posted), until - time.monotonic())
        except PenstockError as error:
            return [error] * len(posted)
        except Exception as error:
            self._disconnect()
            log.exception("sending dead letters failed")
            return [NotSent(f"sending to {each.letter.topic} failed: {error}") for each in posted]
        if any(isinstance(outcome, Unconfirmed) for outcome in outcomes):
            # What is still on its way must not arrive beside its second try, and the brokers
            # may have moved.
            self._disconnect()
        return outcomes

    def _connect(self, until: float) -> Producer:
        if self._producer is None:
            self._producer = Producer(self._settings)
            try:
                self._producer.connect(max(0.1, min(_CONNECT, until - time.monotonic())))
            except TimeoutError as error:
                self._disconnect()
                raise Unconfirmed(f"dead letters cannot be sent: {error}") from error
            except PenstockError:
                self._disconnect()
                raise
        return self._producer

    def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _look(self) -> None:
        """See whether the topics are there, and may be written to."""
        try:
            producer = self._connect(time.monotonic() + _CONNECT)
            found = producer.look_up(self._topics, _CONNECT)
        except PenstockError as error:
            self._look_at = time.monotonic() + _LOOK_SOON
            if not self._unreachable:
                log.warning("cannot look at the dead-letter topics yet", error=str(error))
            self._unreachable = True
            self._disconnect()
            return
        self._unreachable = False
        missing = frozenset(name for name, each in found.items() if each.missing)
        refused = frozenset(
            name
            for name, each in found.items()
            if not each.missing and (each.error is not None or not each.writable)
        )
        for name in sorted(missing - self._missing):
            log.warning("dead-letter topic does not exist: create it", topic=name)
        for name in sorted(refused - self._refused):
            log.warning("dead-letter topic may not be written to: grant WRITE", topic=name)
        self._missing, self._refused = missing, refused
        soon = missing or refused
        self._look_at = time.monotonic() + (_LOOK_SOON if soon else self._settings.metadata_refresh)

    def _fail_rest(self) -> None:
        with self._changed:
            rest = list(self._queue)
            self._queue.clear()
        for each in rest:
            each.over(_closed(each.letter), self._ended)


def _closed(letter: Letter) -> NotSent:
    return Unconfirmed(f"the dead letter of {letter.record} was not sent: the worker ends")
