"""What one worker counts, and the sum over workers.

The numbers are cumulative, never deltas: a snapshot that gets lost on its way to the
supervisor loses nothing, and the last one of a retired worker is merged into a base.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from penstock.telemetry.catalog import (
    COMMIT_OUTCOMES,
    FAILURE_REASONS,
    REBALANCE_EVENTS,
    RECORD_AGE,
    RECORD_OUTCOMES,
    RECORD_PROCESSING,
    CommitOutcome,
    FailureReason,
    RebalanceEvent,
    RecordOutcome,
)
from penstock.telemetry.histogram import Histogram


class Tally:
    """Counts since the worker's start. Thread-safe; call it once a batch, not once a record.

    ``topics`` named here are exported as 0 before their first record.
    """

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self.records: dict[str, dict[RecordOutcome, int]] = {}
        self.failures: dict[str, dict[FailureReason, int]] = {}
        self.dead_letters: dict[str, dict[CommitOutcome, int]] = {}
        self.processing: dict[str, Histogram] = {}
        self.age: dict[str, Histogram] = {}
        self.commits: dict[CommitOutcome, int] = dict.fromkeys(COMMIT_OUTCOMES, 0)
        self.rebalances: dict[RebalanceEvent, int] = dict.fromkeys(REBALANCE_EVENTS, 0)
        #: How often circuit breakers opened, by consumer group.
        self.breakers: dict[str, int] = {}
        for topic in topics:
            self._ensure(topic)

    def handled(
        self, topic: str, outcome: RecordOutcome, durations: Sequence[float], age: float | None
    ) -> None:
        """Count what a runner did in one go: :meth:`batch` and :meth:`count` of its records."""
        with self._lock:
            records = self.records.get(topic)
            if records is None:
                self._ensure(topic)
                records = self.records[topic]
            records[outcome] += len(durations)
            processing = self.processing[topic]
            if len(durations) == 1:
                processing.observe(durations[0])
            elif durations:
                processing.observe_many(durations)
            if age is not None:
                self.age[topic].observe(age)

    def batch(self, topic: str, durations: Sequence[float], age: float | None) -> None:
        """Take in a batch's times, in seconds; outcomes are counted apart, by :meth:`count`.

        ``durations`` has the time in the handler of each record; ``age`` is that of the oldest
        record when the batch was handed over, or None when it has no timestamp.
        """
        with self._lock:
            self._ensure(topic)
            self.processing[topic].observe_many(durations)
            if age is not None:
                self.age[topic].observe(age)

    def count(self, topic: str, outcome: RecordOutcome, n: int = 1) -> None:
        """Count ``n`` records of a topic."""
        with self._lock:
            self._ensure(topic)
            self.records[topic][outcome] += n

    def failure(self, topic: str, reason: FailureReason) -> None:
        """Count a try that failed."""
        with self._lock:
            self._ensure(topic)
            self.failures[topic][reason] += 1

    def dead_letter(self, topic: str, outcome: CommitOutcome) -> None:
        """Count a dead letter that was confirmed, or not."""
        with self._lock:
            self._ensure(topic)
            self.dead_letters[topic][outcome] += 1

    def breaker_opened(self, group: str) -> None:
        """Count a circuit breaker that opened."""
        with self._lock:
            self.breakers[group] = self.breakers.get(group, 0) + 1

    def commit(self, outcome: CommitOutcome) -> None:
        """Count a commit."""
        with self._lock:
            self.commits[outcome] += 1

    def rebalance(self, event: RebalanceEvent) -> None:
        """Count a change of the assignment."""
        with self._lock:
            self.rebalances[event] += 1

    def merge(self, other: Tally) -> None:
        """Add another tally's counts to this one's."""
        # Through a copy, so that the two locks are never held together.
        twin = other.copy()
        with self._lock:
            for topic in twin.records:
                self._ensure(topic)
                for outcome in RECORD_OUTCOMES:
                    self.records[topic][outcome] += twin.records[topic][outcome]
                for reason in FAILURE_REASONS:
                    self.failures[topic][reason] += twin.failures[topic][reason]
                for sent in COMMIT_OUTCOMES:
                    self.dead_letters[topic][sent] += twin.dead_letters[topic][sent]
                self.processing[topic].merge(twin.processing[topic])
                self.age[topic].merge(twin.age[topic])
            for commit in COMMIT_OUTCOMES:
                self.commits[commit] += twin.commits[commit]
            for group, number in twin.breakers.items():
                self.breakers[group] = self.breakers.get(group, 0) + number
            for event in REBALANCE_EVENTS:
                self.rebalances[event] += twin.rebalances[event]

    def copy(self) -> Tally:
        """A snapshot that no other thread changes."""
        return Tally.from_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """A consistent snapshot for :func:`json.dumps`; :meth:`from_json` reads it back."""
        with self._lock:
            return {
                "topics": {
                    topic: {
                        "records": dict(outcomes),
                        "failures": dict(self.failures[topic]),
                        "dead_letters": dict(self.dead_letters[topic]),
                        "processing": self.processing[topic].to_json(),
                        "age": self.age[topic].to_json(),
                    }
                    for topic, outcomes in self.records.items()
                },
                "commits": dict(self.commits),
                "rebalances": dict(self.rebalances),
                "breakers": dict(self.breakers),
            }

    @classmethod
    def from_json(cls, data: Any) -> Tally:
        """Read what :meth:`to_json` made.

        Raises:
            ValueError: it is not that.
        """
        try:
            result = cls(data["topics"])
            for topic, numbers in data["topics"].items():
                for outcome in RECORD_OUTCOMES:
                    result.records[topic][outcome] = int(numbers["records"][outcome])
                for reason in FAILURE_REASONS:
                    result.failures[topic][reason] = int(numbers["failures"].get(reason, 0))
                for sent in COMMIT_OUTCOMES:
                    result.dead_letters[topic][sent] = int(numbers["dead_letters"][sent])
                for name, mine in (("processing", result.processing), ("age", result.age)):
                    # Another version's bounds, after an upgrade and a reload, are no reason
                    # to count nothing.
                    theirs = Histogram.from_json(numbers[name])
                    mine[topic].merge(theirs.rebucketed(mine[topic].bounds))
            for commit in COMMIT_OUTCOMES:
                result.commits[commit] = int(data["commits"][commit])
            result.breakers.update({g: int(n) for g, n in data["breakers"].items()})
            for event in REBALANCE_EVENTS:
                result.rebalances[event] = int(data["rebalances"][event])
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"not a tally: {error!r}") from error
        return result

    def _ensure(self, topic: str) -> None:
        if topic not in self.records:
            self.records[topic] = dict.fromkeys(RECORD_OUTCOMES, 0)
            self.failures[topic] = dict.fromkeys(FAILURE_REASONS, 0)
            self.dead_letters[topic] = dict.fromkeys(COMMIT_OUTCOMES, 0)
            self.processing[topic] = Histogram(RECORD_PROCESSING.buckets)
            self.age[topic] = Histogram(RECORD_AGE.buckets)
