"""The termination message: how the run ended, shown by ``kubectl describe pod``.

The kubelet makes the file and reads at most 4096 bytes of it when the container ends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from penstock.supervisor.exit_record import ExitRecord, encode

#: The kubelet cuts what is longer, in the middle of the JSON.
LIMIT: Final = 4096

# Without O_CREAT: outside Kubernetes there is no such file, and /dev is not ours to fill.
_FLAGS: Final = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY


def write_termination(path: Path, record: ExitRecord) -> bool:
    """Write the record as JSON if the file is there and may be written; tell whether it was.

    Never raises: by now the exit code is decided, and a message must not change it.
    """
    data = encode(record, LIMIT)
    try:
        file = os.open(path, _FLAGS)
        try:
            return os.write(file, data) == len(data)
        finally:
            os.close(file)
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return False
