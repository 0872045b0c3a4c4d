"""What all commands say, and how."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Final

import click

from penstock.errors import PenstockError

#: A file that ends in the middle looks like one that is whole.
_LOST: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_SOON: Final = 1.0  # seconds until a terminal is shown progress
_EACH: Final = (0.2, 10.0)  # seconds between two words of it: on a terminal, elsewhere


class OutputLostError(PenstockError):
    """What was asked for could not be written."""


def say(text: str | bytes, *, err: bool = False, nl: bool = True, result: bool = False) -> bool:
    """Print; whether somebody still reads.

    A reader that went away (``| head``) does not change the exit status.

    Raises:
        OutputLostError: this is the ``result``, and there is no room for it where it goes to.
    """
    try:
        click.echo(text, err=err, nl=nl)
    except OSError as error:
        # What is still buffered would raise again when the interpreter flushes at its end.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, (sys.stderr if err else sys.stdout).fileno())
        os.close(devnull)
        if result and error.errno in _LOST:
            raise OutputLostError(f"the output is not complete: {error.strerror}") from error
        return False
    return True


def literal(text: str) -> str:
    """Keep click from rewrapping a block."""
    return "\b\n" + text


class Progress:
    """Counts what is done; tells, on stderr, when it takes long.

    ``total`` and ``done`` are of ``what``: "3,000 of 9,000 letters replayed, 1,500/s".
    """

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.done = 0
        self._what = what
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._every = _EACH[0] if self._terminal else _EACH[1]
        self._next = self._started + (_SOON if self._terminal else _EACH[1])
        self._shown = False

    def __call__(self, more: int) -> None:
        """So many more are done."""
        self.done += more
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            rate = self.done / (now - self._started)
            text = f"{self.done:,} of {self.total:,} {self._what}, {rate:,.0f}/s"
            if self._terminal:
                click.echo(f"\r{text}\x1b[K", err=True, nl=False)
                self._shown = True
            else:
                say(text, err=True)

    def clear(self) -> None:
        """It is over: leave nothing of it on the terminal."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._shown = False


class Changes:
    """Tells on stderr what is waited for: always anew on a terminal, elsewhere when it changes."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._key = ""
        self._shown = False

    def show(self, key: str, text: str) -> None:
        """``text`` is what there is to say, ``key`` what makes it worth a line of its own."""
        if self._terminal:
            click.echo(f"\r{text}\x1b[K", err=True, nl=False)
            self._shown = True
        elif key != self._key:
            say(text, err=True)
        self._key = key

    def clear(self) -> None:
        """It is over: leave nothing of it on the terminal."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._shown = False
