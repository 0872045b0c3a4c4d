"""What becomes of a record whose handler failed. Pure.

raised ──▶ worth another try? ──yes──▶ again, after the back-off
                 │ no: attempts used up, an exception not to retry, poison
                 ▼
           then: dead_letter(topic) | skip() | stop()

While a partition leaves (a drain, a revocation), only a record that cannot be decoded goes this
way; any other that fails stays as it is, and is delivered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from penstock import arguments
from penstock.breaker import Breaker
from penstock.errors import ConfigError
from penstock.failure import Failure, Kind
from penstock.retry import Backoff

_EXCEPTIONS: Final = "exception classes, not those that end a process"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how long apart, a record is tried.

    ``attempts`` counts the first try, too; ``None`` is for ever. ``first`` and ``limit`` are
    seconds (``None``: the settings ``PENSTOCK_RETRY_FIRST`` and ``PENSTOCK_RETRY_LIMIT``);
    delays double from one to the other, each up to a fifth shorter by chance. ``on``: the
    exceptions worth another try.

    Raises:
        ConfigError: fewer than one attempt, a delay that is not positive, not exceptions.
    """

    attempts: int | None = None
    first: float | None = None
    limit: float | None = None
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if isinstance(self.on, type):  # one class, without the tuple
            object.__setattr__(self, "on", (self.on,))
        if self.attempts is not None:
            hint = ", the first try; None is for ever"
            arguments.whole("Retry", "attempts", self.attempts, hint=hint)
        if self.first is not None:
            arguments.seconds("Retry", "first", self.first)
        if self.limit is not None:
            arguments.seconds("Retry", "limit", self.limit)
        if self.first is not None and self.limit is not None and self.first > self.limit:
            raise ConfigError(f"Retry(first={self.first}, limit={self.limit}): first is longer")
        given: object = self.on
        if isinstance(given, str) or not isinstance(given, Collection):
            arguments.refuse("Retry", "on", given, _EXCEPTIONS)
        object.__setattr__(self, "on", tuple(given))
        for each in given:
            if not (isinstance(each, type) and issubclass(each, Exception)):
                arguments.refuse("Retry", "on", each, _EXCEPTIONS)

    def backoff(self, *, first: float, limit: float) -> Backoff:
        """The schedule, with the settings' delays where the code names none."""
        first = self.first if self.first is not None else min(first, self.limit or first)
        limit = self.limit if self.limit is not None else max(limit, first)
        return Backoff(first=first, limit=limit)


class Then(StrEnum):
    """What is done with a record that will not be tried again."""

    DEAD_LETTER = "dead_letter"
    SKIP = "skip"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Last:
    """The end of a record's attempts. ``topic`` is the dead-letter topic."""

    then: Then
    topic: str = ""


def dead_letter(topic: str) -> Last:
    """Put the record into ``topic``, confirmed by the broker, before its offset is committed."""
    given: object = topic
    if not isinstance(given, str) or not given:
        arguments.refuse("dead_letter", "topic", given, 'name the topic, for example "orders.dead"')
    if (problem := arguments.topic_problem(topic)) is not None:
        raise ConfigError(f"dead_letter(…): {problem}")
    return Last(Then.DEAD_LETTER, topic)


def skip() -> Last:
    """Log the record, count it, and go on without it."""
    return Last(Then.SKIP)


def stop() -> Last:
    """End the service with exit 1; the record stays uncommitted."""
    return Last(Then.STOP)


#: Deaths of its process, with a record in flight each time, after which it is handled alone;
#: and how many may be set.
DEATHS: Final = 3
MOST_DEATHS: Final = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """A subscription's failure policy."""

    retry: Retry = field(default_factory=Retry)
    then: Last = field(default_factory=stop)
    backoff: Backoff = field(default_factory=Backoff)
    #: Seconds a handler may take for a record (or a batch).
    timeout: float | None = None
    breaker: Breaker | None = None
    #: Deaths of its process after which a record is handled alone.
    deaths: int = DEATHS


@dataclass(frozen=True, slots=True)
class Again:
    """Try the record again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Redelivered:
    """It failed while its partition leaves: not a failure that counts, nothing is decided."""


def decide(
    policy: Policy,
    failure: Failure,
    attempts: int,
    random: Callable[[], float],
    *,
    spared: bool = False,
) -> Again | Last:
    """What becomes of a record after its ``attempts``-th try (1 is the first) failed.

    ``spared``: the circuit breaker is open, so the fault is hardly in the record: it waits,
    however many attempts it had.
    """
    if failure.poison:
        return policy.then
    retry = policy.retry
    if not failure.retriable:
        return policy.then
    if not spared and retry.attempts is not None and attempts >= retry.attempts:
        return policy.then
    return Again(policy.backoff.delay(attempts, random))


def stays(failure: Failure, *, alone: bool) -> bool:
    """Whether what failed while its partition leaves is delivered again, whatever its policy.

    What else goes down at the same moment (a sidecar, a client closed by the same TERM) makes
    handlers fail, and says nothing about the record. Only decoding depends on the value alone;
    and a record that was not ``alone`` with its failure, in a batch, cannot overtake the others.
    What ends the service (``sys.exit()`` in a handler) does so at any time.
    """
    return failure.kind is not Kind.CRASH and (failure.kind is not Kind.UNDECODABLE or not alone)
