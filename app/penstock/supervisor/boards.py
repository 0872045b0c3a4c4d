"""The boards of a service's workers as files in the state directory.

``board-<worker>-<pid>`` is made when a worker starts to consume and removed when it is buried.
One that the next run finds was left by a death that nobody survived.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock import board_file
from penstock.board import Board, Working
from penstock.record import printable
from penstock.supervisor.exit_record import InFlight

_PREFIX: Final = "board-"
#: More are not ours; reading stays quick whatever somebody put there.
_MOST: Final = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Left:
    """A board whose worker is gone. ``alone`` and ``draining`` are its marks."""

    path: Path
    group: str
    working: tuple[Working, ...]
    held: tuple[InFlight, ...]
    alone: bool
    draining: bool


class Boards:
    """Makes the boards of this run. Where that cannot be done they stay in memory."""

    def __init__(self, directory: Path | None) -> None:
        """``directory``: locked by the journal; None: there is none that may be written."""
        self._directory = directory
        self._told = directory is None  # the journal has told already

    def create(self, index: int, pid: int, slots: int, group: str) -> tuple[Board, Path] | None:
        """A board in a file for a worker that is about to consume."""
        if self._directory is None:
            return None
        path = self._directory / f"{_PREFIX}{index}-{pid}"
        try:
            path.unlink(missing_ok=True)  # of a process that had this number before
            return board_file.create(path, slots, group), path
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning(
                    "PENSTOCK_STATE_DIR=%s: a board cannot be kept there (%s); what was in "
                    "flight is not known if the whole container is killed",
                    self._directory,
                    error.strerror or error,
                )
            return None


def in_flight(working: Iterable[Working], now: float) -> tuple[InFlight, ...]:
    """For people; ``now`` is monotonic."""
    return tuple(
        InFlight(
            w.topic,
            w.partition,
            w.offset,
            printable(w.key),
            max(0.0, now - w.since),
            None,
            count=w.count,
            last=w.last if w.count > 1 else None,
        )
        for w in working
    )


def left(directory: Path) -> tuple[Left, ...]:
    """What an earlier run's workers held; call with the directory locked.

    A board whose process lives (its supervisor was killed, and it drains) is left alone, and
    found by a later run.
    """
    try:
        paths = sorted(directory.glob(f"{_PREFIX}*"))[:_MOST]
    except OSError:
        return ()
    return tuple(found for path in paths if (found := _look(path)) is not None)


def _look(path: Path) -> Left | None:
    try:
        board, group = board_file.reopen(path)
    except (OSError, ValueError):
        return Left(path, "", (), (), alone=False, draining=False)  # nobody could ever read it
    try:
        if board_file.is_in_use(board):
            return None
        working = tuple(board.working())
        # Another boot may have passed: only what the worker itself noted can be compared.
        held = in_flight(working, board.poll_at() or 0.0)
        return Left(path, group, working, held, board.is_alone, board.is_draining)
    finally:
        board.close()


def remove(paths: Iterable[Path]) -> None:
    """Take boards away that are read."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
