"""Workers at their work: they are started, told of quiet, and seen to have caught up.

A client of the table of slots, as replacing is. Looks at states, not at events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.lifecycle import Kind, Request

if TYPE_CHECKING:
    from penstock.supervisor.journal import Journal
    from penstock.supervisor.service import Supervisor


class Running:
    """The part of a service's life between the first hello and the drain."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._sent_quiet = False
        self._journal: Journal | None = None
        #: When the run before this one stopped working, in seconds since the epoch.
        self._gap_from: float | None = None

    def opened(self, journal: Journal) -> None:
        """The settings are known."""
        self._journal, self._gap_from = journal, journal.history.restarted_from

    def step(self) -> None:
        """Whoever is up is started; all of them are told of quiet."""
        self._start_workers()
        self._apply_quiet()

    def look_for_the_end(self) -> None:
        """Of a batch run, and of the restart gap."""
        self._stop_if_caught_up()
        self._measure_gap()

    def _start_workers(self) -> None:
        sup = self._sup
        workers = sup.slots.workers()
        for child in workers:
            if child.hello is not None and not child.consumed:
                told, board = sup.post_mortem.prepare(child)
                if board is not None:
                    with sup.lock:
                        child.take_board(board)
                child.start(told)
                if sup.lifecycle.want_quiet:
                    child.channel.send("quiet")
        if (
            not sup.ever_started
            and len(workers) == sup.places
            and all(c.ever_joined and c.board.poll_at() is not None for c in workers)
        ):
            with sup.lock:
                sup.ever_started = True
                sup.lifecycle.started()
            seconds = round(sup.host.monotonic() - sup.began, 3)
            sup.log.info("running", seconds=seconds)

    def _apply_quiet(self) -> None:
        sup = self._sup
        if self._sent_quiet != sup.lifecycle.want_quiet:
            self._sent_quiet = sup.lifecycle.want_quiet
            for child in sup.slots.everyone():
                child.channel.send("quiet" if self._sent_quiet else "resume")

    def _stop_if_caught_up(self) -> None:
        """A batch run ends as if somebody had asked it to stop: drained, committed, 0."""
        sup = self._sup
        assert sup.settings is not None
        if not sup.settings.stop_when_caught_up or sup.replacing.busy:
            return
        workers = sup.slots.workers()
        if (
            sup.ever_started
            and len(workers) == sup.places
            and all(child.consumed and child.facts.caught_up for child in workers)
        ):
            why = "caught up with everything that was there at the start"
            sup.view.ask(Request(Kind.STOP, source="batch", detail="batch", reason=why))

    def _measure_gap(self) -> None:
        """The restart gap ends with the first record that any worker hands to a handler."""
        sup = self._sup
        if self._gap_from is None or self._journal is None:
            return
        taken = [t for c in sup.slots.workers() if (t := c.board.taken_at()) is not None]
        if taken:
            gap = max(0.0, min(taken) - self._gap_from)
            self._gap_from = None
            self._journal.record_gap(gap)
            sup.log.info("restart gap", seconds=round(gap, 3))
