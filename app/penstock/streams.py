"""Standard streams that may be closed, full, or without a reader.

Imports only what the interpreter has loaded: :func:`open_missing` runs before everything else.
"""

import io
import os
import sys


def open_missing() -> None:
    """Put ``/dev/null`` where a standard stream was closed (``>&-``).

    Its number would go to the next file or socket that is opened, and what is printed into that.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(null, True)
            setattr(sys, name, os.fdopen(null, "w" if fd else "r", closefd=False))


class _Forgiving(io.FileIO):
    """Drops what cannot be written: nobody reads any more (``| head``), or the disk is full."""

    def write(self, data: object, /) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data)  # type: ignore[arg-type]  # whatever FileIO takes
        except BlockingIOError:
            raise
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]  # as above


def forgive() -> None:
    """Let ``print`` in a handler not fail the record because of who reads it, or does not."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        if type(old) is not io.TextIOWrapper:  # closed, or replaced by somebody
            continue
        raw = _Forgiving(fd, "wb", closefd=False)
        unbuffered = isinstance(old.buffer, io.RawIOBase)  # PYTHONUNBUFFERED
        new = io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw),
            encoding=old.encoding,
            errors=old.errors,
            line_buffering=old.line_buffering,
            write_through=old.write_through,
        )
        setattr(sys, name, new)


def flush() -> None:
    """Write out what is buffered, if it can be written: no exit code depends on it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # nobody reads; closed; None
            continue
