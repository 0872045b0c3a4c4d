"""Handling a record alone, with nothing beside it in its process. Pure.

The desk asks before it takes records off a strand. A record with too many deaths in its company
(:mod:`penstock.deaths`) waits until nothing runs, runs by itself, and everything else waits for
it. If its process dies of that, the next one does not call its handler any more.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from penstock import deaths
from penstock.errors import KilledItsProcess
from penstock.failure import Failure, Kind
from penstock.lane import Job, Strand

#: Seconds for the commit of what is finished before a record is handled that may kill: then its
#: death repeats nothing.
_PATIENCE: Final = 5.0


class Isolation:
    """Who is to be alone, and who is."""

    def __init__(self, limit: int) -> None:
        """``limit``: deaths after which a record is handled alone."""
        self._limit = limit
        #: The strand whose first record waits to be alone, or is.
        self.waiting: Strand | None = None
        #: Until when it waits for what is finished to be committed, at the latest.
        self.until: float | None = None
        #: Handlers at work.
        self.handling = 0

    def wait(self, strand: Strand, now: float) -> None:
        """Its first record is to be alone; nothing else begins any more."""
        self.waiting = strand
        self.until = now + _PATIENCE

    def may_wait(self, now: float) -> bool:
        """Whether there is still time for a commit."""
        if self.until is not None and now >= self.until:
            self.until = None
        return self.until is not None

    def wants_alone(self, strand: Strand) -> bool:
        """Whether a strand's first record has to be handled alone."""
        if not strand.lane.deaths:
            return False
        found = deaths.of(strand.lane.deaths, strand.waiting[0].offset)
        return found is not None and found.times >= self._limit and not found.flags

    def bounded(self, strand: Strand, size: int) -> int:
        """At most ``size`` records in a row; one that is apart from others comes by itself."""
        coming = islice(strand.waiting, size)
        room = deaths.room(strand.lane.deaths, coming, self._limit)
        return size if room is None else max(1, room)

    def begin(self, job: Job) -> None:
        """A job is given out."""
        self.handling += 1
        strand = job.strand
        if strand is self.waiting:
            job.alone = True
            self.until = None
        elif job.lane.deaths:
            found = deaths.of(job.lane.deaths, job.records[0].offset)
            if found is not None and found.flags & deaths.KILLS:
                job.refused = KilledItsProcess(found.times)
                strand.attempts = found.times - 1  # its deaths are its tries

    def end(self, job: Job, failure: Failure | None) -> None:
        """A job is back: what it finished, and whoever was alone and lives, is acquitted."""
        self.handling -= 1
        lane = job.lane
        if not lane.deaths:
            return
        for record in job.records[: job.done]:
            lane.deaths = deaths.without(lane.deaths, record.offset)
        if job.alone and failure is not None and failure.kind is not Kind.CRASH:
            lane.deaths = deaths.without(lane.deaths, job.records[0].offset)
