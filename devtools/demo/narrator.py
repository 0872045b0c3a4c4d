"""Lines for people: what happens, and when. Plain text; colour on a terminal only."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

_GREEN, _RED, _BOLD, _DIM, _END = "\033[32m", "\033[31m", "\033[1m", "\033[2m", "\033[0m"


class Narrator:
    """Prints one line a step, with the seconds since it was made."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._began = time.monotonic()
        self._colours = self._out.isatty() and not os.environ.get("NO_COLOR")

    @property
    def elapsed(self) -> float:
        """Seconds since the first line could have been."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """A step."""
        clock = self._in(_DIM, f"[{self.elapsed:5.1f} s]")
        print(f"{clock} {text}", file=self._out, flush=True)

    def show(self, text: str) -> None:
        """A block that stands on its own."""
        print(f"\n{text}", file=self._out, flush=True)

    def conclude(self, text: str, *, good: bool) -> None:
        """The last word."""
        colour = _BOLD + (_GREEN if good else _RED)
        print(f"\n{self._in(colour, text)}", file=self._out, flush=True)

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_END}" if self._colours else text
