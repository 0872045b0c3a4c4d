"""What every broker on this machine shares: Java, the jars, and what was prepared from them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from .archive import make_archive
from .classpath import cache_lock, find_java, resolve_classpath
from .storage import make_checkpoint


@dataclass(frozen=True)
class Runtime:
    """Everything it takes to start brokers, ready for use."""

    java: Path
    classpath: str
    checkpoint: Path
    """The feature snapshot that a new data directory starts from."""
    archive: Path | None
    """The archive of loaded classes; None if none could be made."""

    @property
    def flags(self) -> tuple[str, ...]:
        """JVM flags beyond the common ones."""
        return (f"-XX:SharedArchiveFile={self.archive}",) if self.archive else ()


@functools.cache
def prepare() -> Runtime:
    """Return the runtime; the first call ever downloads and prepares it, others wait for that.

    Raises:
        BrokerUnavailable: with the reason why there can be no broker on this machine.
    """
    java = find_java()
    with cache_lock() as cache:
        classpath = resolve_classpath(cache)
        checkpoint = make_checkpoint(cache, java, classpath)
        archive = make_archive(cache, java, classpath, checkpoint)
    return Runtime(java, classpath, checkpoint, archive)
