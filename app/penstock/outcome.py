"""What became of a restart, stop or reload that was asked for. Pure: reports in, a verdict out.

The asker is not the service's parent, so no one hands it the exit code. It is read where the
service wrote it down, or is told by the run that follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock import render
from penstock.exits import PLANNED, Exit, name_of

Report = Mapping[str, Any]

#: Exit statuses of the commands that ask, beside 0 (as asked) and 1 (not as asked, or refused).
#: As in ``sysexits.h``, like 64 and 78.
UNKNOWN: Final = 69
LATE: Final = 75

#: Seconds in its handler after which a record is named as what is waited for.
_LONG: Final = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """An exit status, and the sentence that explains it."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. ``code`` is None for one that was killed and left no word."""

    code: int | None
    reason: str

    @classmethod
    def of(cls, record: Report) -> Ended:
        """From an exit record: a line of the journal, or ``last_exit``."""
        code = record.get("code")
        return cls(code if isinstance(code, int) else None, str(record.get("reason") or ""))


def is_other_run(before: Report, now: Report) -> bool:
    """Whether the service was started anew between two reports."""
    if before.get("run") and now.get("run"):
        return bool(before["run"] != now["run"])
    return bool(now["uptime_seconds"] < before["uptime_seconds"])


def told_by_successor(run: str, now: Report) -> Ended | None:
    """How ``run`` ended, if the next run tells: its last exit may be one in between."""
    last = now.get("last_exit")
    return Ended.of(last) if last and run and last.get("run") == run else None


def of_end(kind: str, ended: Ended | None) -> Verdict:
    """The verdict on a service that was asked to stop or restart, and is gone."""
    wanted = Exit.STOPPED if kind == "stop" else Exit.RESTART
    if ended is None:
        return Verdict(
            UNKNOWN,
            "the service is gone, and nothing here tells how it ended: its log, its journal and "
            "the `penstock status` of its next run do",
        )
    if ended.code == wanted:
        return Verdict(0, f"the service exited {_named(wanted)}, as asked")
    if ended.code is None:
        return Verdict(1, f"the service ended without a word: {ended.reason}")
    why = f": {ended.reason}" if ended.reason else ""
    if ended.code in PLANNED:
        why = f": something else was asked for, too ({ended.reason})"
    return Verdict(1, f"the service exited {_named(ended.code)} and not {_named(wanted)}{why}")


def still_there(report: Report, seconds: float) -> Verdict:
    """The verdict when the time to wait is over first."""
    return Verdict(
        LATE,
        f"the service is still there after {seconds:g} s, {progress(report)[1]}; "
        "--timeout waits longer",
    )


def of_return(report: Report | None, failed: Ended | None, seconds: float) -> Verdict:
    """The verdict on a service that exited 4 and was waited for.

    ``report`` is its next run's last word, if any; ``failed`` is how a run after it ended, if one
    did. With neither nothing started it again: that something should is not known here.
    """
    if failed is not None and not (report is not None and report.get("ready")):
        code = "ended without a word" if failed.code is None else f"exited {_named(failed.code)}"
        return Verdict(
            1, f"the service exited 4 RESTART, as asked, but the next run {code}: {failed.reason}"
        )
    if report is None:
        return Verdict(
            0, f"the service exited 4 RESTART, as asked; nothing started it again in {seconds:g} s"
        )
    if report.get("ready"):
        return Verdict(0, "the service exited 4 RESTART, as asked, and is ready again")
    reasons = "; ".join(map(str, report.get("reasons", []))) or str(report.get("state"))
    return Verdict(
        LATE,
        f"the service exited 4 RESTART, as asked, and was started again, but it is not ready "
        f"after {seconds:g} s: {reasons}",
    )


def of_reload(wanted: int, report: Report) -> Verdict | None:
    """The verdict on reload number ``wanted``, once there is one."""
    reload = report.get("reload", {})
    if reload.get("id", 0) < wanted or reload.get("state") not in ("done", "given up"):
        return None
    if reload["state"] == "done":
        return Verdict(0, "reloaded: every worker was replaced")
    return Verdict(1, f"the reload was given up: {reload.get('reason') or 'no reason was told'}")


def of_reload_that_ended(ended: Ended | None) -> Verdict:
    """The verdict when the service ended, or was started anew, before its reload was over."""
    if ended is None:
        return Verdict(UNKNOWN, f"the reload did not end: {of_end('reload', None).text}")
    code = "ended without a word" if ended.code is None else f"exited {_named(ended.code)}"
    return Verdict(1, f"the service {code} before the reload was over: {ended.reason}")


def progress(report: Report) -> tuple[str, str]:
    """What the service does, in short, and a key that changes when that is worth a line."""
    workers = report.get("workers", [])
    held = [record for worker in workers for record in worker.get("in_flight", [])]
    drain, reload = report.get("drain"), report.get("reload", {})
    if report.get("failure"):
        key = f"will exit {report['failure']['code']} {report['failure']['name']}"
        return key, f"{key}: {report['failure']['reason']}"
    if drain is None:
        if reload.get("state") in ("wanted", "running"):
            pids = " ".join(str(worker.get("pid")) for worker in workers)
            return f"reloading {pids}", f"reloading: workers {pids}"
        return str(report.get("state")), str(report.get("state"))
    left = f"{render.duration(max(0.0, drain['left_seconds']))} left"
    if not workers:
        return "drained", "drained"
    if not held:
        return "committing", f"draining: committing and closing, {left}"
    oldest = max(held, key=lambda record: float(record["age_seconds"]))
    if oldest["age_seconds"] < _LONG:
        return "draining", f"draining: {_records(len(held))} in flight, {left}"
    name = f"{oldest['topic']}[{oldest['partition']}]@{oldest['offset']}"
    age = render.duration(oldest["age_seconds"])
    more = f" and {len(held) - 1} more" if len(held) > 1 else ""
    return name, f"draining: waits for {name}{more}, in its handler for {age}; {left}"


def _named(code: int) -> str:
    return f"{int(code)} {name_of(code)}"


def _records(number: int) -> str:
    return f"{number} record{'' if number == 1 else 's'}"
