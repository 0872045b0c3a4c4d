"""The journal of exits: a file that outlives the process, so that no end goes uncounted.

``journal.jsonl`` in ``PENSTOCK_STATE_DIR`` gets a line when a run starts and one when it
ends. A start without an end is found by the next run and counted as lost. The journal is
there to observe: no I/O error of it ever reaches the service. What cannot be written is kept
in memory, counted from there, and written with the next line if the disk allows it by then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import uuid
from pathlib import Path
from typing import Final, Self

from penstock.errors import ConfigError
from penstock.supervisor import boards
from penstock.supervisor.boards import Left
from penstock.supervisor.exit_history import (
    ExitHistory,
    Ledger,
    exit_line,
    gap_line,
    start_line,
)
from penstock.supervisor.exit_record import ExitRecord

FILE: Final = "journal.jsonl"
LOCK: Final = "journal.lock"

#: Beyond this size (bytes) the file is compacted.
COMPACT_AT: Final = 256 * 1024
#: We never write a file of this size (bytes): what follows is not ours and is not read.
_READ_LIMIT: Final = 4 * COMPACT_AT

# No symbolic link is followed (the directory may be in /tmp), and a pipe does not block.
_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK

log = logging.getLogger(__name__)


class Journal:
    """The journal, open and locked until :meth:`close`. One thread writes; any may read.

    ``degraded`` is the reason why lines are only remembered in memory, or None. ``run`` is
    this run's id in the file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run = uuid.uuid4().hex[:12]
        self.degraded: str | None = None
        #: Replaced as a whole, so that a scrape on another thread sees one state of it.
        self.history: ExitHistory
        #: The boards of a run that was lost: what its workers held.
        self.left: tuple[Left, ...] = ()
        self._ledger = Ledger()
        self._lock: int | None = None
        self._file: int | None = None
        self._size = 0
        self._unwritten: list[bytes] = []
        #: The file's last line has no newline yet: a crash, or a full disk, cut it.
        self._torn = False

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / FILE

    @classmethod
    def open(cls, directory: Path, *, now: float) -> Self:
        """Lock the directory, made (mode 0700) if missing, and read what earlier runs left.

        ``now``, in seconds since the epoch, is when runs without an exit line are found lost.

        Raises:
            ConfigError: another service keeps its journal in the same directory.
        """
        journal = cls(directory)
        content = b""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal._lock = _locked(directory)
            journal._file = _opened(directory / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            content = _read(journal._file)
        except OSError as error:
            journal._degrade(error)
            journal._close_file()
            content = _what_is_readable(directory / FILE)
        journal._restore(content, now)
        return journal

    @property
    def writable(self) -> Path | None:
        """The directory, if other files of the service may be kept in it."""
        return self.directory if self._file is not None else None

    def write_start(self, *, at: float, version: str) -> None:
        """Note that this run began; ``at`` is in seconds since the epoch."""
        self._add([start_line(self.run, at=at, version=version)])

    def write_exit(self, record: ExitRecord) -> None:
        """Note how this run ends. The first call counts; a second one changes nothing."""
        self._add([exit_line(self.run, record)])

    def record_gap(self, seconds: float) -> None:
        """Note the restart gap that this run ended."""
        self._add([gap_line(seconds)], durable=False)

    def close(self) -> None:
        """Release the directory for another process."""
        self._close_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------

    def _restore(self, content: bytes, now: float) -> None:
        for line in content.split(b"\n"):
            self._ledger.feed(line)
        self._size = len(content)
        self._torn = bool(content) and not content.endswith(b"\n")
        self.history = self._ledger.history()
        if self._ledger.skipped:
            log.warning(
                "journal in PENSTOCK_STATE_DIR=%s: skipped %d damaged lines",
                self.directory,
                self._ledger.skipped,
            )
        left = boards.left(self.directory) if self._lock is not None else ()
        if self._ledger.is_open:
            self.left = left
        self._add(self._ledger.lost(now, [item for each in self.left for item in each.held]))
        boards.remove([each.path for each in left])

    def _add(self, lines: list[bytes], *, durable: bool = True) -> None:
        for line in lines:
            self._ledger.feed(line)
        self.history = self._ledger.history()
        self._unwritten += lines
        if self._file is None:
            return
        try:
            if self._unwritten:
                self._append(self._file, durable=durable)
            if self._size > COMPACT_AT:
                self._compact()
        except OSError as error:
            self._degrade(error)
        else:
            self.degraded = None

    def _append(self, file: int, *, durable: bool) -> None:
        """Everything unwritten, in one write: a crash leaves a line or the start of one."""
        data = b"".join(line + b"\n" for line in self._unwritten)
        data = b"\n" + data if self._torn else data
        before = os.fstat(file).st_size
        written = os.write(file, data)
        if written < len(data):
            # A disk that is nearly full takes a part. Taking it back needs no space.
            torn_before, self._torn = self._torn, True
            os.ftruncate(file, before)
            self._torn = torn_before
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size = before + written
        self._torn = False
        self._unwritten.clear()
        if durable:
            os.fsync(file)

    def _compact(self) -> None:
        """Put a shorter file in the old one's place, atomically."""
        lines = self._ledger.compacted()
        path = self.directory / FILE
        temporary = path.with_suffix(".tmp")
        try:
            file, size = _written(temporary, b"".join(line + b"\n" for line in lines))
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._close_file()
        self._file, self._size, self._torn = file, size, False
        self._ledger = Ledger()
        for line in lines:
            self._ledger.feed(line)
        _sync_directory(self.directory)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _degrade(self, error: OSError) -> None:
        if self.degraded is not None:
            return  # told already; the first error is the one that matters
        self.degraded = (
            f"PENSTOCK_STATE_DIR={self.directory}: the journal cannot be written "
            f"({error.strerror or error}); exits are only remembered until this process ends"
        )
        log.warning(self.degraded)


def _locked(directory: Path) -> int:
    """The lock's descriptor; the kernel drops the lock with the process, however that ends."""
    lock = _opened(directory / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigError(
            f"PENSTOCK_STATE_DIR={directory} is in use by another service (pid {holder}): "
            "give each service a directory of its own"
        ) from None
    except OSError:
        os.close(lock)
        raise
    # The pid is for that sentence only: the lock holds without it on a full disk.
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def _opened(path: Path, flags: int) -> int:
    file = os.open(path, flags | _SAFE, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(f"{path.name} is not a regular file")
    return file


def _written(path: Path, data: bytes) -> tuple[int, int]:
    """A new file, safe on the disk and open to append to, and its size."""
    file = _opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
    try:
        size = os.write(file, data)
        os.fsync(file)
    except OSError:
        os.close(file)
        raise
    if size < len(data):
        os.close(file)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return file, size


def _read(file: int) -> bytes:
    """At most ``_READ_LIMIT`` bytes: start-up does not depend on what somebody put there."""
    parts = []
    left = _READ_LIMIT
    while left and (part := os.pread(file, left, _READ_LIMIT - left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _what_is_readable(path: Path) -> bytes:
    """The history, for a journal that cannot be written (a disk mounted read-only)."""
    try:
        file = _opened(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return _read(file)
    except OSError:
        return b""
    finally:
        os.close(file)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
