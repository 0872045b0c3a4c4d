"""What a kit and its members share: time, topics, and the list of what happened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

from penstock import offset_map
from penstock.errors import NotSent
from penstock.letters import Letter, headers
from penstock.record import Partition, Record
from penstock.testing.calls import Spending, Try
from penstock.testing.errors import KitError
from penstock.testing.topics import Topics
from penstock.testing.virtual import VirtualLoop

#: Tries of one record after which nobody believes that it will ever succeed.
_TRIES = 10_000


class World:
    """Everything outside the worker processes; it survives them."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.topics = Topics()
        #: What the handler that runs at this moment spends, if it is a plain function.
        self.spending: Spending | None = None
        #: Dead letters that will not be taken.
        self.refusals = 0.0
        self.sent: list[Record] = []
        self.handled: list[Record] = []
        self.skipped: list[Record] = []
        self.tries: list[Try] = []
        self.counts: Counter[str] = Counter()
        self.attempts: Counter[tuple[str, int, int]] = Counter()
        #: Finished, and never to be handed over again, by partition.
        self._finished: dict[Partition, set[int]] = {}
        self._over: Callable[[], bool] | None = None
        self._escaped: BaseException | None = None

    # -- time --------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds; in a plain handler, with what it has spent."""
        return self.loop.time() + (self.spending.seconds if self.spending else 0.0)

    def spin(
        self,
        over: Callable[[], bool],
        *,
        horizon: float = math.inf,
        on_rest: Callable[[], None] | None = None,
    ) -> None:
        """Let virtual time pass until ``over()``, or as far as the horizon."""
        loop = self.loop

        def reached() -> None:
            loop.jump(horizon)
            loop.stop()

        loop.horizon, loop.on_rest = horizon, on_rest or reached
        if over():
            return
        self._over = over
        try:
            loop.run_forever()
        finally:
            self._over = None
        escaped, self._escaped = self._escaped, None
        if escaped is not None:
            raise escaped

    # -- what members tell -------------------------------------------------------------

    def noticed(self) -> None:
        """Something happened: look whether what is waited for has come."""
        if self._over is None:
            return
        try:
            over = self._over()
        except BaseException as error:  # of the test's own condition
            self.escaped(error)
            return
        if over:
            self.loop.stop()

    def escaped(self, error: BaseException) -> None:
        """Not the handler's failure, but the test's."""
        self._escaped = self._escaped or error
        self.loop.stop()

    def begins(self, call: Try) -> None:
        """The handler is about to be called."""
        self.tries.append(call)
        for record in call.records:
            at = (record.topic, record.partition, record.offset)
            self.attempts[at] += 1
            if self.attempts[at] > _TRIES:
                raise KitError(f"{record} was tried {_TRIES:,} times")
            if record.offset in self._finished.get(_where(record), ()):
                raise KitError(
                    f"{record} was finished, and is handed over again though nothing crashed: "
                    "this is a fault of Penstock, please report it"
                )

    def completed(self, records: Iterable[Record], *, gone: bool) -> None:
        """The handler returned for these; ``gone``: their partition went meanwhile."""
        for record in records:
            self.handled.append(record)
            self.finished(record, "lost" if gone else "done")

    def finished(self, record: Record, outcome: str) -> None:
        """A record is over and done with."""
        self.counts[outcome] += 1
        if outcome == "skipped":
            self.skipped.append(record)
        if outcome != "lost":
            self._finished.setdefault(_where(record), set()).add(record.offset)

    def post(self, letter: Letter) -> Exception | None:
        """Send a dead letter; the error if it is refused."""
        if self.refusals > 0:
            self.refusals -= 1
            return NotSent(f"{letter.topic}: refused, as the test wants it")
        origin = letter.record
        self.topics.add(
            Record(
                topic=letter.topic,
                partition=0,
                offset=self.topics.end(Partition(letter.topic, 0)),
                timestamp=int(letter.at * 1000),
                key=origin.key,
                value=origin.value,
                headers=tuple(headers(letter)),
            )
        )
        return None

    # -- commits -----------------------------------------------------------------------

    def beyond(self, partition: Partition) -> frozenset[int]:
        """What the commit's metadata calls finished."""
        position = self.topics.commits.get(partition)
        if position is None:
            return frozenset()
        return offset_map.decode(*position).finished

    def forget_uncommitted(self, partitions: Iterable[Partition]) -> None:
        """Something crashed: what was finished and not committed may be handed over again."""
        for partition in partitions:
            position = self.topics.commits.get(partition)
            beyond = self.beyond(partition)
            self._finished[partition] = {
                offset
                for offset in self._finished.get(partition, ())
                if position is not None and (offset < position.offset or offset in beyond)
            }


def _where(record: Record) -> Partition:
    return Partition(record.topic, record.partition)
