"""What all commands say, and how."""

from __future__ import annotations

import os
import sys

import click


def say(text: str, *, err: bool = False) -> None:
    """Print; a reader that went away (``| head``) does not change the exit status."""
    try:
        click.echo(text, err=err)
    except OSError:
        # What is still buffered would raise again when the interpreter flushes at its end.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, (sys.stderr if err else sys.stdout).fileno())
        os.close(devnull)


def literal(text: str) -> str:
    """Keep click from rewrapping a block."""
    return "\b\n" + text
