"""What is found out about a worker that died: what it held, and how much memory it had.

Boards are given out here when workers start, and read here when they are buried. What a worker
held that died by itself is counted against those records (:mod:`penstock.deaths`); one that we
ended at a deadline was stuck, and that is no record's death.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.board import Board
from penstock.deaths import Toll
from penstock.settings import Settings
from penstock.settings_wire import to_wire
from penstock.supervisor import boards
from penstock.supervisor.boards import Boards
from penstock.supervisor.exit_record import InFlight, Memory, naming
from penstock.supervisor.journal import Journal
from penstock.supervisor.tolls import Tolls

if TYPE_CHECKING:
    from penstock.supervisor.child import Child
    from penstock.supervisor.host import Host


#: Seconds that telling the groups may take, all together, and the least that make sense.
_PATIENCE: Final = 8.0
_LEAST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Findings:
    """About one worker."""

    held: tuple[InFlight, ...] = ()
    memory: Memory = field(default_factory=Memory)

    def __str__(self) -> str:
        """To follow what is said of its end."""
        memory = str(self.memory)
        return naming(self.held) + (f"; {memory}" if memory else "")


class PostMortem:
    """The boards and the tolls of one service."""

    def __init__(self, host: Host, journal: Journal | None = None) -> None:
        """``journal``: it has the state directory, where boards and tolls are kept, too."""
        directory = None if journal is None else journal.writable
        self._host = host
        self._boards = Boards(directory)
        self._tolls = Tolls(directory, now=host.wall())
        self._paths: dict[int, Path] = {}
        #: Slot, group, member id, generation and tolls of those that died.
        self._wills: list[tuple[int, str, str, int, Collection[Toll]]] = []
        for left in journal.left if journal is not None else ():
            # Killed while it drained: a platform that lost patience, and no record's doing.
            if not left.draining:
                self._tolls.died(left.group, left.working, alone=left.alone, at=host.wall())

    def prepare(self, child: Child) -> tuple[dict[str, Any], Board | None]:
        """What a worker is told with the word to start, and the board it is to move to."""
        reading, hello = child.reading, child.hello
        assert reading is not None
        assert hello is not None
        told: dict[str, Any] = {}
        if tolls := self._tolls.of(reading.group):
            told["tolls"] = tolls
        made = self._boards.create(child.index, child.pid, hello.concurrency, reading.group)
        if made is not None:
            board, path = made
            told["board"] = str(path)
            self._paths[child.pid] = path
            return told, board
        return told, None

    def merged(self, ids: Iterable[str]) -> None:
        """A worker says that the group's commits tell of these deaths."""
        self._tolls.merged(ids)

    def examine(self, child: Child, *, peak: int | None) -> Findings:
        """A worker was reaped; ``peak`` is the most memory it ever held, in bytes.

        Nothing about one that ended as it was told to, or by our hand.
        """
        path = self._paths.pop(child.pid, None)
        try:
            if child.discarded or child.killed or child.last_words is not None:
                return Findings()
            working = child.board.working()
            held = boards.in_flight(working, self._host.monotonic())
            if child.reading is not None:
                group, alone = child.reading.group, child.board.is_alone
                tolls = self._tolls.died(group, working, alone=alone, at=self._host.wall())
                self._remember(child, group, tolls)
            return Findings(held, Memory(peak, self._limit()))
        finally:
            if path is not None:
                boards.remove([path])

    def _remember(self, child: Child, group: str, tolls: Collection[Toll]) -> None:
        joined = child.board.joined_as()
        if tolls and joined is not None:
            member, generation = joined
            self._wills.append((child.index, group, member, generation, tolls))

    def leave_word(
        self, settings: Settings, instance_of: Callable[[int], str | None], seconds: float
    ) -> None:
        """Tell the groups of the deaths, for the members that died, for ``seconds`` at most.

        So that the count is there for whoever is given the partitions, in another pod, too. What
        a group does not take stays with us, for our next worker.
        """
        until = self._host.monotonic() + min(seconds, _PATIENCE)
        wills, self._wills = self._wills, []
        for index, group, member, generation, tolls in wills:
            left = until - self._host.monotonic()
            if left < _LEAST:
                return
            told = {
                "settings": to_wire(settings),
                "dead": [group, instance_of(index), member, generation],
                "tolls": [toll.to_json() for toll in tolls],
                "seconds": left * 0.8,
            }
            self._tolls.merged(self._host.last_will(told, left))

    def _limit(self) -> int | None:
        reading = self._host.memory()
        return None if reading is None else reading.limit
