"""Stacks of every thread in every process: for TTIN, and before a stuck worker is ended.

A worker is asked over its channel and logs its own stacks. One that does not answer (a
handler holds the GIL) gets a signal that ``faulthandler`` answers in C, into memory that the
supervisor reads.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any, Final

from penstock import stacks
from penstock.supervisor.child import Child

#: How long a worker may take to answer before the signal is sent, in seconds.
_PATIENCE: Final = 1.0
#: How long faulthandler may take to write; it does so at once unless the machine is busy.
_WRITING: Final = 0.5


class Dumps:
    """Dumps that were asked for and not yet seen."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._waiting: dict[int, tuple[Child, float]] = {}
        self._signalled: dict[int, tuple[Child, float, int]] = {}
        self._forced: dict[int, int] = {}

    def ask(self, children: Iterable[Child], now: float) -> None:
        """TTIN: log our own stacks, and have every worker log its own."""
        for name, stack in stacks.of_all().items():
            self._log.warning("stack", thread=name, stack=stack)
        for child in children:
            child.channel.send("dump")
            self._waiting[child.pid] = (child, now + _PATIENCE)

    def answered(self, child: Child) -> None:
        """The worker logged its stacks."""
        self._waiting.pop(child.pid, None)

    def check(self, now: float) -> None:
        """Signal workers that did not answer; log what the signal brought."""
        for pid, (child, due) in list(self._waiting.items()):
            if now >= due:
                del self._waiting[pid]
                if not child.gone:
                    self._signalled[pid] = (child, now + _WRITING, child.stacks_size())
                    child.signal(signal.SIGUSR1)
        for pid, (child, due, size) in list(self._signalled.items()):
            if child.gone:
                del self._signalled[pid]
            elif now >= due:
                del self._signalled[pid]
                self._log.warning(
                    "stack", worker=child.index, stuck=True, stack=child.stacks_since(size)
                )

    def force(self, children: Iterable[Child]) -> None:
        """Have the stacks written of workers that are past helping themselves; once each."""
        for child in children:
            if child.pid not in self._forced and child.last_words is None:
                self._forced[child.pid] = child.stacks_size()
                child.signal(signal.SIGUSR1)

    def stack_of(self, child: Child) -> str | None:
        """What :meth:`force` brought: where the worker's handlers stand."""
        size = self._forced.get(child.pid)
        dump = "" if size is None else child.stacks_since(size)
        return stacks.of_handlers(dump) or None
