"""Writes the parts of the documentation that are facts of the code: tables.

``python -m devtools.docs`` rewrites what stands between ``<!-- begin NAME -->`` and
``<!-- end NAME -->`` in the Markdown files; ``--check`` only tells (exit 1) what has drifted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from penstock import exits, letters, memory
from penstock.settings import Settings, env_name
from penstock.supervisor import signals
from penstock.telemetry import catalog

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def exit_table() -> str:
    """The exit contract."""
    return _table(
        ("code", "name", "when", "planned"),
        ((k.code, k.name, k.when, "yes" if k.planned else "no") for k in exits.TABLE),
    )


def signal_table() -> str:
    """Signals and what they ask for."""
    notes = {
        "quiet": "quiet: take nothing new, keep the assignment",
        "resume": "resume after quiet",
        "reload": "reload: replace the workers in place, one after another",
        "dump": "log every thread's stack, in every process",
        "stop": "stop: drain, exit 0",
        "restart": "restart: drain, exit 4",
    }
    return _table(
        ("signal", "what it asks for"),
        ((r.detail.removeprefix("SIG"), notes[r.kind]) for r in signals.REQUESTS.values()),
    )


def settings_table() -> str:
    """Every setting with its default."""
    return _table(
        ("setting", "default", "meaning"),
        (
            (f"`{env_name(name)}`", _default(field), field.description or "")
            for name, field in Settings.model_fields.items()
        ),
    )


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "**required**" if field.default_factory is None else "–"
    value = field.default
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def memory_table() -> str:
    """The parts of the memory formula, with the figures of the defaults."""
    model = Settings.model_validate({"bootstrap_servers": "kafka:9092"})
    bound = memory.bound_of(model, subscriptions=1)
    fetch = (
        f"{memory.COPIES} x `PENSTOCK_FETCH_BYTES`, and {memory.RECORD:,} bytes for each of "
        "`PENSTOCK_MAX_POLL_RECORDS`"
    )
    room = f"/ {model.memory_high:g}, so that a full buffer is no reason to replace a worker"
    parts = (
        ("supervisor", bound.supervisor, "HTTP, metrics, journal; once"),
        ("base", bound.base, "a worker that is connected and has nothing to do"),
        ("buffer", bound.buffer, "`PENSTOCK_BUFFER_BYTES`"),
        ("fetch", bound.fetch, fetch),
        ("handlers", bound.handlers, "what handlers hold, and the modules that they import"),
        ("with one worker", bound.total, "the sum"),
        ("least limit", bound.limit(model.memory_high), room),
    )
    rows = [(name, f"{number / memory.MB:,.0f}", what) for name, number, what in parts]
    return _table(("part", "MB", "what it is"), rows)


def metrics_table() -> str:
    """Every metric with its labels."""
    return _table(
        ("metric", "type", "labels", "meaning"),
        (
            (f"`{m.name}`", str(m.kind), ", ".join(f"`{label}`" for label in m.labels), m.help)
            for m in catalog.METRICS
        ),
    )


def letters_table() -> str:
    """The headers of a dead letter."""
    return _table(
        ("header", "what it says"),
        ((f"`{letters.PREFIX}{name}`", said) for name, said in letters.FIELDS.items()),
    )


def decisions_list() -> str:
    """Every decision, by its number and with its title as a link."""
    lines = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        heading, number = path.read_text().partition("\n")[0], path.name[:4]
        title = heading.removeprefix(f"# {number}: ")
        if title == heading:
            raise ValueError(f"{path}: its heading has to be '# {number}: ' and a title")
        lines.append(f"- {number} [{title}]({path.name})\n")
    return "".join(lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "exits": exit_table,
    "signals": signal_table,
    "settings": settings_table,
    "memory": memory_table,
    "metrics": metrics_table,
    "letters": letters_table,
    "decisions": decisions_list,
}


def rendered(text: str) -> str:
    """A Markdown text with every block written anew."""
    return _BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], text)


def files() -> list[Path]:
    """The Markdown files that may have blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(argv: list[str]) -> int:
    """Rewrite, or with ``--check`` tell."""
    drifted = []
    for path in files():
        old = path.read_text()
        new = rendered(old)
        if old != new:
            drifted.append(path.relative_to(ROOT))
            if "--check" not in argv:
                path.write_text(new)
    for name in drifted:
        print(f"{'drifted' if '--check' in argv else 'rewritten'}: {name}")
    return 1 if drifted and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
