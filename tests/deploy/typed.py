"""A page of the documentation as a script: its commands are typed, its files are saved.

In a ``console`` block a line after ``# `` is typed and the lines below it must be among what it
shows. Any other block whose first line is ``# /path`` is the file of that path.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Commands that only look: what they are to show may take a moment to come.
LOOKING = re.compile(
    r"(systemctl (show|status|is-active|list-units)|journalctl|\S*/penstock (health|status))\b"
)


@dataclass(frozen=True)
class Step:
    """A file to write, or a command to type with the lines it is to show."""

    path: str = ""
    text: str = ""
    command: str = ""
    shows: tuple[str, ...] = ()


def steps_of(markdown: str) -> Iterator[list[Step]]:
    """The blocks of a page that are meant to be typed or saved."""
    for kind, body in _BLOCK.findall(markdown):
        first, _, rest = body.partition("\n")
        if kind == "console":
            yield _commands(body)
        elif first.startswith("# /"):
            yield [Step(path=first.removeprefix("# "), text=rest)]


def _commands(body: str) -> list[Step]:
    steps: list[Step] = []
    for line in body.splitlines():
        if line.startswith("# "):
            steps.append(Step(command=line.removeprefix("# ")))
        else:
            last = steps.pop()
            steps.append(Step(command=last.command, shows=(*last.shows, line)))
    return steps


def as_shown(output: str, shows: tuple[str, ...]) -> bool:
    """Whether the lines are there, in this order; ``…`` stands for anything."""
    lines = iter(output.splitlines())
    patterns = [re.sub(r"([\[\]?*])", r"[\1]", line).replace("…", "*") for line in shows]
    return all(any(fnmatch.fnmatchcase(line, pattern) for line in lines) for pattern in patterns)
