"""Tables for a terminal: exit codes, settings and the status of a service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from penstock import exits


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; the last one runs free."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def exit_codes() -> str:
    """The exit contract, one row a code."""
    return table(
        ("CODE", "NAME", "PLANNED", "WHEN"),
        ((k.code, k.name, "yes" if k.planned else "no", k.when) for k in exits.TABLE),
    )


def status(report: dict[str, Any]) -> str:
    """What ``/status`` said, for a person."""
    return "\n".join(_status(report))


def _status(report: dict[str, Any]) -> Iterator[str]:
    health = ", ".join(word if report.get(word) else f"not {word}" for word in ("ready", "live"))
    yield f"{report['state']} ({health}), up {duration(report.get('uptime_seconds', 0))}"
    for reason in report.get("reasons", []):
        yield f"  {reason}"
    if intent := report.get("intent"):
        held = " (held)" if intent.get("held") and not intent.get("released") else ""
        why = f": {intent['reason']}" if intent.get("reason") else ""
        yield f"{intent['kind']}{held} asked by {intent.get('requested_by') or 'unknown'}{why}"
    if failure := report.get("failure"):
        yield f"will exit {failure['code']} {failure['name']}: {failure['reason']}"
    if drain := report.get("drain"):
        age, left = duration(drain["age_seconds"]), duration(drain["left_seconds"])
        yield f"draining for {age}, {left} left"
    if (reload := report.get("reload", {})).get("id"):
        why = f": {reload['reason']}" if reload.get("reason") else ""
        yield f"reload {reload['id']} {reload['state']}{why}"
    yield f"group {report.get('group')}, topics {', '.join(report.get('topics', []))}"
    yield ""
    yield _workers(report.get("workers", []))
    for worker in report.get("workers", []):
        for warning in worker.get("warnings", []):
            yield f"worker {worker['index']}: {warning}"
    in_flight = [r for worker in report.get("workers", []) for r in worker.get("in_flight", [])]
    if in_flight:
        yield ""
        yield _in_flight(in_flight)
    yield ""
    yield from _exits(report)
    build = report.get("build", {})
    yield (
        f"penstock {build.get('version')}, Python {build.get('python')}, "
        f"kafka-python {build.get('kafka_python')}"
    )


def _workers(workers: list[dict[str, Any]]) -> str:
    if not workers:
        return "no workers"
    several = len({worker.get("handler") for worker in workers}) > 1
    return table(
        (
            "WORKER",
            *(("HANDLER",) if several else ()),
            *("PID", "STATE", "JOINED", "POLLED", "PARTITIONS", "LAG", "IN FLIGHT"),
        ),
        (
            (
                worker["index"],
                *((_or_dash(worker.get("handler")),) if several else ()),
                _or_dash(worker.get("pid")),
                worker["state"],
                "yes" if worker.get("joined") else "no",
                _ago(worker.get("poll_age_seconds")),
                _assignment(worker.get("assignment", {})),
                _lag(worker),
                len(worker.get("in_flight", [])),
            )
            for worker in workers
        ),
    )


def _assignment(assignment: dict[str, list[int]]) -> str:
    return (
        " ".join(f"{topic}[{','.join(map(str, numbers))}]" for topic, numbers in assignment.items())
        or "-"
    )


def _lag(worker: dict[str, Any]) -> str:
    known = [lag for topic in worker.get("lag", {}).values() for lag in topic.values()]
    assigned = sum(map(len, worker.get("assignment", {}).values()))
    # A sum over some of the partitions would read as less lag than there is.
    return str(sum(known)) if known and len(known) >= assigned else "unknown" if assigned else "-"


def _in_flight(records: list[dict[str, Any]]) -> str:
    return table(
        ("RECORD", "AGE", "KEY"),
        (
            (
                f"{record['topic']}[{record['partition']}]@{record['offset']}",
                duration(record["age_seconds"]),
                _or_dash(record.get("key")),
            )
            for record in sorted(records, key=lambda r: -float(r["age_seconds"]))
        ),
    )


def _exits(report: dict[str, Any]) -> Iterator[str]:
    counted = [e for e in report.get("exits", []) if e["count"]]
    if counted:
        yield "exits: " + ", ".join(f"{e['count']} x {e['code']} {e['name']}" for e in counted)
    if last := report.get("last_exit"):
        planned = "planned" if last["planned"] else "not planned"
        what = f"{last['code']} {last['name']} ({planned})"
        yield f"last exit: {what} at {last['at']}: {last.get('reason') or '-'}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``5 h 2 min``, ``3 d 4 h``."""
    if seconds < 10:  # noqa: PLR2004 (below that, tenths tell something)
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, below, small in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{whole} s"


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else f"{duration(seconds)} ago"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
