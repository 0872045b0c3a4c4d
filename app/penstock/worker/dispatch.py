"""From the poll loop to the handlers: lanes, handler threads, retries, and their bookkeeping.

A record's way in: :meth:`Dispatcher.feed` puts what a poll brought into the partition's
lane; a handler thread takes the lane, calls the handler record by record, and moves the
watermark; the poll loop commits :meth:`Dispatcher.committable`.

A restart's way out: :meth:`Dispatcher.drain` stops every lane after the record in flight and
drops what no handler has started (uncommitted, so redelivered); :meth:`Dispatcher.idle`
tells when the last one finished.

One lock guards queues and counts. It is held for moves between queues, never while a handler
runs and never across I/O.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping

import structlog

from penstock.board import Board, Slot
from penstock.flow import Flow
from penstock.plan import Plan
from penstock.record import Partition, Record
from penstock.retry import Backoff
from penstock.telemetry.tally import Tally
from penstock.worker.lane import Lane

log = structlog.get_logger("penstock.worker")


class Dispatcher:
    """Lanes and the threads that work on them. Also the engine's ``Rebalance``."""

    def __init__(self, plan: Plan, board: Board, tally: Tally) -> None:
        settings = plan.settings
        self._plan = plan
        self._board = board
        self._tally = tally
        self._backoff = Backoff(first=settings.retry_first, limit=settings.retry_limit)
        self._flow = Flow(total=settings.buffer_records, batch=settings.max_poll_records)
        self._lanes: dict[Partition, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._later: list[tuple[float, int, Lane]] = []
        self._order = itertools.count()
        self._change = threading.Condition()
        self._quiet = False
        self._draining = False
        self._ended = False
        self._took_any = False
        #: Handlers that run, those on partitions that are gone included.
        self._running = 0
        #: Set when a handler did something no retry can mend (``sys.exit`` in a handler).
        self.fatal: str | None = None
        #: Called, without the lock, whenever a stopped lane has come to rest.
        self.on_settled: Callable[[], None] = lambda: None
        self._threads = [
            threading.Thread(
                target=self._work, args=(board.slot(i),), name=f"handler-{i}", daemon=True
            )
            for i in range(plan.concurrency)
        ]

    # -- threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Start the handler threads."""
        for thread in self._threads:
            thread.start()

    def end(self, timeout: float) -> bool:
        """End and join the threads; false if one is still in a handler after ``timeout``."""
        with self._change:
            self._ended = True
            self._change.notify_all()
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # -- records in --------------------------------------------------------------------

    def feed(self, partition: Partition, records: list[Record]) -> None:
        """Hand over what a poll brought. Records of a partition we do not own are ignored."""
        with self._change:
            lane = self._lanes.get(partition)
            if lane is None or lane.leaving or self._draining:
                return  # revoked between poll and here: the next owner gets them
            lane.watermark.admit(
                [records[-1].offset] if self._plan.batch else [r.offset for r in records]
            )
            lane.chunks.append(records)
            self._flow.add(partition, len(records))
            self._enqueue(lane)

    def _enqueue(self, lane: Lane) -> None:
        if lane.chunks and not (lane.busy or lane.queued or lane.stop):
            lane.queued = True
            self._ready.append(lane)
            self._change.notify()

    def flow(self) -> tuple[Collection[Partition], Collection[Partition]]:
        """``(partitions to pause, partitions to resume)`` since the last call."""
        with self._change:
            return self._flow.changes()

    def wait_for_room(self, timeout: float) -> None:
        """Return as soon as a handler finished something, at the latest after ``timeout``."""
        with self._change:
            if self._flow.saturated and not self._draining:
                self._change.wait(timeout)

    @property
    def saturated(self) -> bool:
        """Whether everything is paused because too much waits."""
        return self._flow.saturated

    @property
    def waiting(self) -> int:
        """Records handed over by Kafka that no handler has finished."""
        return self._flow.waiting

    # -- handlers ----------------------------------------------------------------------

    def _work(self, slot: Slot) -> None:
        """A handler thread's life."""
        while (lane := self._next()) is not None:
            failure = self._handle(lane, slot)
            settled = self._put_back(lane, failure)
            if settled:
                self.on_settled()

    def _next(self) -> Lane | None:
        """Wait for a lane with work, or for the end."""
        with self._change:
            while not self._ended:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    lane = heapq.heappop(self._later)[2]
                    if not lane.gone:  # the partition may be back, with a lane of its own
                        self._flow.release(lane.partition)
                        self._ready.append(lane)
                if self._ready:
                    lane = self._ready.popleft()
                    lane.queued = False
                    if lane.stop or not lane.chunks:
                        continue
                    lane.busy = True
                    self._running += 1
                    return lane
                self._change.wait(self._later[0][0] - now if self._later else None)
        return None

    def _handle(self, lane: Lane, slot: Slot) -> BaseException | None:
        """Work on the lane's first chunk; the hot path, without the lock."""
        chunk = lane.chunks[0]  # the poll loop appends, revocations trim: never this one
        handler = self._plan.handler
        hold = slot.hold
        clock = time.monotonic
        durations: list[float] = []
        failure: BaseException | None = None
        slot.enter(lane.partition.topic)
        wall = time.time()
        if not self._took_any:
            self._took_any = True
            self._board.first_taken(wall)
        age = _age(chunk[lane.index], wall)
        start = clock()
        try:
            if self._plan.batch:
                first, count = chunk[0], len(chunk)
                hold(start, first.offset, first.partition, count, first.key)
                handler(list(chunk))
                durations = [(clock() - start) / count] * count
                lane.watermark.done(chunk[-1].offset)
                lane.index = count
            else:
                number = lane.partition.number
                done = lane.watermark.done
                index = lane.index
                try:
                    for record in chunk[index:] if index else chunk:
                        offset = record.offset
                        # Noted before looking at ``stop``: who sees the lane stopped and
                        # the board empty may rely on no handler being about to start.
                        hold(start, offset, number, 1, record.key)
                        if lane.stop:
                            break
                        handler(record)
                        now = clock()
                        durations.append(now - start)
                        start = now
                        done(offset)
                        index += 1
                finally:
                    if index != lane.index:
                        lane.attempts = 0  # they are the next record's now
                    lane.index = index
        except BaseException as error:  # told and retried, or fatal, in _put_back
            failure = error
        slot.clear()
        if durations:
            self._board.last_done(time.time())
        self._tally.batch(lane.partition.topic, durations, age)
        if durations:
            self._tally.count(lane.partition.topic, "lost" if lane.gone else "done", len(durations))
        return failure

    def _put_back(self, lane: Lane, failure: BaseException | None) -> bool:
        """Put the lane where it belongs next; tells whether a stopped lane came to rest."""
        with self._change:
            lane.busy = False
            self._running -= 1
            chunk = lane.chunks[0] if lane.chunks else []
            failed = chunk[lane.index] if lane.index < len(chunk) else None
            if lane.index >= len(chunk) and chunk:
                lane.chunks.popleft()
                if not lane.gone:  # the partition may be back: its count is another lane's
                    self._flow.take(lane.partition, len(chunk))
                lane.index = 0
            if failure is None:
                lane.attempts = 0
                self._enqueue(lane)
            elif not isinstance(failure, Exception):
                self.fatal = f"a handler raised {type(failure).__name__}: {failure}"
            elif not (lane.leaving or self._draining):
                self._retry_later(lane)
            if lane.leaving or self._draining:
                self._drop_waiting(lane)
            self._change.notify_all()
            stopped = lane.stop
        if failure is not None:
            self._tell(lane, failed, failure)
        return stopped

    def _retry_later(self, lane: Lane) -> None:
        lane.attempts += 1
        delay = self._backoff.delay(lane.attempts, random.random)
        lane.queued = True
        self._flow.hold(lane.partition)
        heapq.heappush(self._later, (time.monotonic() + delay, next(self._order), lane))

    def _tell(self, lane: Lane, record: Record | None, failure: BaseException) -> None:
        self._tally.count(lane.partition.topic, "retried")
        log.error(
            "handler failed; the record will be tried again",
            record=str(record),
            attempt=lane.attempts,
            exc_info=failure,
        )

    # -- quiet, drain ------------------------------------------------------------------

    def quiet(self) -> None:
        """Start nothing new; keep what waits."""
        with self._change:
            self._quiet = True
            for lane in self._lanes.values():
                lane.stop = True

    def resume(self) -> None:
        """Go on after :meth:`quiet`."""
        with self._change:
            self._quiet = False
            for lane in self._lanes.values():
                lane.stop = lane.leaving or self._draining
                self._enqueue(lane)
            # The poll loop may wait here, too: waking one thread could wake the wrong one.
            self._change.notify_all()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing new is to be started."""
        return self._quiet

    def drain(self) -> int:
        """Start nothing new, ever; drop what waits. Returns how many records were dropped."""
        with self._change:
            self._draining = True
            dropped = 0
            for lane in self._lanes.values():
                lane.stop = True
                dropped += self._drop_waiting(lane)
            self._later.clear()
            self._change.notify_all()
        return dropped

    def _drop_waiting(self, lane: Lane) -> int:
        """Forget what no handler has started; the chunk in work stays for its thread."""
        if lane.busy:
            first = lane.chunks[0]
            dropped = sum(map(len, lane.chunks)) - len(first)
            lane.chunks = deque([first])
            # How much of the first one is dropped shows when its thread lets go.
        else:
            dropped = lane.waiting
            lane.chunks.clear()
            lane.index = 0
        if dropped:
            self._tally.count(lane.partition.topic, "dropped", dropped)
        return dropped

    def idle(self) -> bool:
        """Whether no handler is running."""
        with self._change:
            return self._running == 0

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no handler is running, or ``timeout`` seconds."""
        with self._change:
            return self._change.wait_for(lambda: self._running == 0, timeout)

    # -- offsets -----------------------------------------------------------------------

    def committable(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Positions that are finished and not yet confirmed by the broker."""
        with self._change:
            lanes = (
                self._lanes.values()
                if partitions is None
                else [self._lanes[p] for p in partitions if p in self._lanes]
            )
            return {
                lane.partition: lane.watermark.position
                for lane in lanes
                if lane.dirty and not lane.gone and lane.watermark.position is not None
            }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """The broker confirmed these positions."""
        with self._change:
            for partition, offset in offsets.items():
                lane = self._lanes.get(partition)
                if lane is not None:
                    lane.committed = offset

    def unfinished(self) -> dict[Partition, int]:
        """The first offset that was handed over and is not finished, where there is one.

        A partition that is not here has finished everything up to the client's position.
        """
        with self._change:
            found = {}
            for partition, lane in self._lanes.items():
                lowest = lane.watermark.lowest
                if self._plan.batch and lane.chunks:  # of a batch only the last one is admitted
                    lowest = lane.chunks[0][0].offset
                if lowest is not None:
                    found[partition] = lowest
            return found

    # -- Rebalance, on the engine's thread ---------------------------------------------

    def assigned(self, partitions: Collection[Partition]) -> bool:
        """See :class:`penstock.kafka.port.Rebalance`."""
        self._tally.rebalance("assigned")
        with self._change:
            for partition in partitions:
                lane = Lane(partition)
                lane.stop = self._quiet or self._draining
                self._lanes[partition] = lane
                self._flow.own(partition)
            return self._quiet or self._draining

    def revoking(self, partitions: Collection[Partition]) -> None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        with self._change:
            for lane in self._of(partitions):
                lane.leaving = lane.stop = True
                self._drop_waiting(lane)

    def settled(self, partitions: Collection[Partition]) -> bool:
        """See :class:`penstock.kafka.port.Rebalance`."""
        with self._change:
            return not any(lane.busy for lane in self._of(partitions))

    def revoked(self, partitions: Collection[Partition], *, committed: bool) -> None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        self._tally.rebalance("revoked")
        with self._change:
            self._forget(partitions, committed=committed)

    def lost(self, partitions: Collection[Partition]) -> None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        self._tally.rebalance("lost")
        log.warning("partitions were taken away", partitions=[str(p) for p in partitions])
        with self._change:
            for lane in self._of(partitions):
                lane.leaving = lane.stop = True
                self._drop_waiting(lane)
            self._forget(partitions, committed=False)

    def _forget(self, partitions: Collection[Partition], *, committed: bool) -> None:
        for lane in self._of(partitions):
            if lane.busy:
                log.warning(
                    "a partition was given up with a record in flight; it will be delivered again",
                    partition=str(lane.partition),
                )
                self.abandoned += 1
            elif lane.dirty and not committed:
                self.abandoned += 1
            lane.gone = True
            del self._lanes[lane.partition]
            self._flow.disown(lane.partition)
        self._change.notify_all()

    #: Partitions given up with finished work uncommitted, or work still in flight. While
    #: draining this means that the exit is not a clean one.
    abandoned = 0

    def _of(self, partitions: Collection[Partition]) -> list[Lane]:
        return [self._lanes[p] for p in partitions if p in self._lanes]


def _age(record: Record, wall: float) -> float | None:
    """Seconds since the record was written; the oldest message formats do not say when."""
    return wall - record.timestamp / 1000 if record.timestamp and record.timestamp > 0 else None
