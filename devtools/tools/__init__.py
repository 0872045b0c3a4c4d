"""The platform's own command-line tools: where they are, and which versions are ours.

``make tools`` builds the Go ones, pinned by the checksums of ``devtools/tools/*/go.sum``, into
``.cache/tools/bin``. Whatever is on the PATH serves as well: a platform engineer's own helm is
as good a judge of our chart.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]

#: Where ``make tools`` puts what it builds.
BIN: Final = _ROOT / ".cache" / "tools" / "bin"


def find(name: str) -> Path | None:
    """The tool's executable: ours first, then whatever the PATH has; None where there is none."""
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    return None if found is None else Path(found)
