"""Watch a service do what it was asked to do; the shell around :mod:`penstock.outcome`."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock import outcome
from penstock.client import Answer, Client, ServiceGoneError
from penstock.outcome import Ended, Report, Verdict

#: Seconds after an exit in which something may have started the service again. systemd's unit
#: waits two, Docker less.
AGAIN: Final = 10.0
#: Seconds in which a next run may tell how a service ended that was to stay away.
_WORD: Final = 2.0
#: A journal is compacted long before this size (bytes).
_MOST: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was accepted: the service as it answered, and where its exit will stand."""

    kind: str
    report: Report
    journal: str | None

    @classmethod
    def of(cls, kind: str, answer: Answer) -> Asked:
        """From the answer to the request."""
        return cls(kind, answer.json.get("status", {}), answer.json.get("journal"))

    @property
    def run(self) -> str:
        """The run that was asked."""
        return str(self.report.get("run") or "")


def to_the_end(
    client: Client, asked: Asked, seconds: float, show: Callable[[Report], None]
) -> Verdict:
    """Follow a stop or a restart until it is over, for at most ``seconds``.

    A restart is over when the service is ready again, if something starts it again.
    """
    until = time.monotonic() + seconds
    stays_away = asked.kind == "stop"
    last, successor = _until_it_ends(client, asked, seconds, show)
    if successor is None and last is not None:
        return outcome.still_there(last, seconds)
    ended = written_down(asked)
    if ended is None or (not stays_away and not outcome.of_end(asked.kind, ended).status):
        patience = _WORD if stays_away else AGAIN
        successor = successor or _successor(client, asked, min(patience, until - time.monotonic()))
    if ended is None and successor is not None:
        ended = outcome.told_by_successor(asked.run, successor)
    verdict = outcome.of_end(asked.kind, ended)
    if verdict.status or stays_away:
        return verdict
    if successor is None:
        return outcome.of_return(None, written_down_after(asked), AGAIN)
    for report in client.poll_on(until - time.monotonic()):
        if report is not None:
            successor = report
            show(report)
            if report.get("ready"):
                break
    return outcome.of_return(successor, written_down_after(asked), seconds)


def _until_it_ends(
    client: Client, asked: Asked, seconds: float, show: Callable[[Report], None]
) -> tuple[Report | None, Report | None]:
    """The last report of the run that was asked, if it is still there; and the next run's."""
    last = asked.report
    try:
        for report in client.poll(seconds):
            if outcome.is_other_run(last, report):
                return None, report
            last = report
            show(report)
    except ServiceGoneError:
        return None, None
    return last, None


def _successor(client: Client, asked: Asked, seconds: float) -> Report | None:
    """The next run, if one answers in time."""
    for report in client.poll_on(seconds):
        if report is not None and outcome.is_other_run(asked.report, report):
            return report
    return None


def reload(client: Client, asked: Asked, seconds: float, show: Callable[[Report], None]) -> Verdict:
    """Follow a reload until it is done or given up, for at most ``seconds``."""
    wanted = int(asked.report.get("reload", {}).get("id", 0))
    last: Report = asked.report
    successor: Report | None = None
    try:
        for report in client.poll(seconds):
            if outcome.is_other_run(last, report):
                successor = report
                break
            if (verdict := outcome.of_reload(wanted, report)) is not None:
                return verdict
            last = report
            show(report)
        else:
            return outcome.still_there(last, seconds)
    except ServiceGoneError:
        pass
    ended = written_down(asked)
    if ended is None:
        successor = successor or _successor(client, asked, _WORD)
        ended = None if successor is None else outcome.told_by_successor(asked.run, successor)
    return outcome.of_reload_that_ended(ended)


def written_down(asked: Asked) -> Ended | None:
    """What the journal says of the end of the run that was asked, where it can be read.

    The path is of the service's machine. That this is the same one is known by the run's name,
    which no other journal has.
    """
    if not asked.journal or not asked.run:
        return None
    of_it = [entry for entry in _entries(asked.journal) if entry.get("run") == asked.run]
    if not of_it:
        return None
    for entry in of_it:
        if entry.get("t") == "exit":
            return Ended.of(entry)
    return Ended(None, "its journal has no exit record: it was killed, or could not write it")


def written_down_after(asked: Asked) -> Ended | None:
    """What the journal says of the last end of a run after the one that was asked."""
    latest, seen = None, False
    for entry in _entries(asked.journal or ""):
        if entry.get("t") == "exit":
            latest = Ended.of(entry) if seen else None
            seen = seen or entry.get("run") == asked.run
    return latest


def _entries(path: str) -> list[dict[str, Any]]:
    return [entry for line in _lines(path) if (entry := _parsed(line))]


def _lines(path: str) -> list[bytes]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return []
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return []
        return os.read(file, _MOST).split(b"\n")
    except OSError:
        return []
    finally:
        os.close(file)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
