"""When a batch run is over: everything that was there when it began is finished.

Pure. The end of each partition is noted when it is first seen; what is produced after that
belongs to the next run, so a topic that never stands still does not keep a Job for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from penstock.record import Partition


class CaughtUp:
    """Looks at one worker's partitions until each has come to where its log ended at first."""

    def __init__(self, *, settle: float) -> None:
        """``settle``: seconds that the assignment must have stood still, joined.

        A member that joins a running group owns nothing until the others have given up its
        share (KIP-429): an assignment counts only once it has lasted.
        """
        self._settle = settle
        self._ends: dict[Partition, int] = {}
        self._assignment: frozenset[Partition] = frozenset()
        self._since: float | None = None

    def look(
        self,
        now: float,
        *,
        stable: bool,
        assignment: Collection[Partition],
        finished: Mapping[Partition, int],
        ends: Mapping[Partition, int],
    ) -> bool:
        """Whether everything is done: now, not once and for ever.

        A worker that was done and is given what another one left unfinished is not done.

        ``finished``: the next offset of each partition that is not finished yet, ``ends``:
        the end of each log; a partition missing in either is not known yet, so not done.
        """
        owned = frozenset(assignment)
        for gone in self._ends.keys() - owned:
            del self._ends[gone]  # whoever owns it now does what is left
        for partition in owned & ends.keys():
            self._ends.setdefault(partition, ends[partition])
        if not stable:
            self._since = None
            return False
        if self._since is None or owned != self._assignment:
            self._assignment, self._since = owned, now
        if now - self._since < self._settle:
            return False
        return all(
            partition in self._ends
            and partition in finished
            and finished[partition] >= self._ends[partition]
            for partition in owned
        )
