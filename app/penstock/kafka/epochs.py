"""Which leader epoch the records of a partition are of, as far as they were handed over. Pure.

A log is cut off where a leader is elected that did not have all of it. What was read before is
told from what is read after by the leader epoch, a number that every record carries and every
election raises (KIP-101, KIP-320): a commit says of which epoch the record before it was, and a
leader can say where that epoch ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

#: Epochs that are remembered of a partition: as many elections between two commits.
_MOST: Final = 100


class Epochs:
    """The epochs of one partition's records, by offset."""

    __slots__ = ("_epochs", "_starts", "highest")

    def __init__(self, before: int = -1, highest: int = -1) -> None:
        """``before``: of the last record before the first that will come; -1: not known.

        ``highest``: the latest that anything said so far is of.
        """
        self._starts = [-1]
        self._epochs = [before]
        #: No record that was handed over, or that an earlier owner told of, is of a later one.
        self.highest = max(before, highest)

    def saw(self, records: Sequence[Any]) -> None:
        """``records``, with their ``offset`` and ``leader_epoch``, in order, are handed over.

        Looks at one of them, as long as there was no election.
        """
        if records[-1].leader_epoch == self._epochs[-1]:
            return
        for record in records:
            if record.leader_epoch != self._epochs[-1]:
                self._begins(record.offset, record.leader_epoch)
        self.highest = max(self.highest, self._epochs[-1])

    def _begins(self, offset: int, epoch: int) -> None:
        starts, epochs = self._starts, self._epochs
        while starts and starts[-1] >= offset:  # the log was cut off, and grew again
            starts.pop()
            epochs.pop()
        starts.append(offset)
        epochs.append(epoch)
        del starts[:-_MOST], epochs[:-_MOST]

    def before(self, offset: int) -> int:
        """The epoch of the last known record before ``offset``; -1 if that is not known."""
        index = bisect_left(self._starts, offset) - 1
        return self._epochs[index] if index >= 0 else -1
