"""Deaths that the group's commits do not tell of yet: a small file in the state directory.

A worker that dies cannot count. So the supervisor writes down whose company it died in, and
hands that to the next workers; the one that is given the partition adds it to what the commit
tells, commits, and says so (:mod:`penstock.deaths`). Only then is it taken out of here.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from penstock import deaths
from penstock.board import Working
from penstock.deaths import Toll

FILE: Final = "deaths.json"

#: Kept at most, the latest: of partitions that never came back to this service nobody asks.
MOST: Final = 200
#: Bytes that are read at most: what is longer is none of ours.
_READ_LIMIT: Final = 256 * 1024
#: Seconds after which nobody remembers: the offsets of a topic that is gone may come again.
_FORGOTTEN: Final = 7 * 86_400.0

_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = logging.getLogger(__name__)


class Tolls:
    """The file, and what is in it. Without a directory only this process remembers."""

    def __init__(self, directory: Path | None, *, now: float) -> None:
        """``directory``: locked by the journal. ``now``: seconds since the epoch."""
        self._path = None if directory is None else directory / FILE
        self._tolls = [t for t in self._read() if now - t.at < _FORGOTTEN]

    def died(
        self, group: str, working: Sequence[Working], *, alone: bool, at: float
    ) -> Collection[Toll]:
        """A worker of ``group`` died with these records; ``alone`` is its board's mark."""
        found = [
            Toll(uuid.uuid4().hex[:12], group, partition, each, at)
            for partition, each in deaths.held(working, alone=alone).items()
        ]
        if found:
            self._tolls = [*self._tolls, *found][-MOST:]
            self._write()
        return found

    def of(self, group: str) -> list[dict[str, Any]]:
        """What a worker of ``group`` has to know, for the channel."""
        return [toll.to_json() for toll in self._tolls if toll.group == group]

    def merged(self, ids: Iterable[str]) -> None:
        """The group's commits tell of these."""
        gone = set(ids)
        left = [toll for toll in self._tolls if toll.id not in gone]
        if len(left) < len(self._tolls):
            self._tolls = left
            self._write()

    # -- the file ----------------------------------------------------------------------

    def _read(self) -> list[Toll]:
        if self._path is None:
            return []
        try:
            content = self._content(self._path)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("%s cannot be read (%s)", self._path, error.strerror or error)
            return []
        try:
            return [Toll.from_json(each) for each in json.loads(content)["tolls"]][-MOST:]
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("%s is damaged: deaths are counted from here on", self._path)
            return []

    @staticmethod
    def _content(path: Path) -> bytes:
        file = os.open(path, os.O_RDONLY | _SAFE)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return b""
            return os.pread(file, _READ_LIMIT, 0)
        finally:
            os.close(file)

    def _write(self) -> None:
        """Put a new file in the old one's place; what cannot be written is remembered."""
        if self._path is None:
            return
        new = self._path.with_suffix(".tmp")
        data = json.dumps({"tolls": [t.to_json() for t in self._tolls]}).encode()
        try:
            new.unlink(missing_ok=True)
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
            try:
                written = os.write(file, data)
                os.fsync(file)
            finally:
                os.close(file)
            if written == len(data):
                new.rename(self._path)
                return
            reason = "no room"
        except OSError as error:
            reason = error.strerror or str(error)
        log.warning(
            "%s cannot be written (%s): who was in flight at a death is only remembered until "
            "this process ends",
            self._path,
            reason,
        )
