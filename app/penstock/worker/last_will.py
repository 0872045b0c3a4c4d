"""``python -m penstock.worker.last_will``: started by the supervisor after a worker's death.

Reads one JSON object (settings, the dead member, tolls, seconds), commits the tolls on the dead
member's behalf, and writes the ids of those that were taken. PID 1 itself never touches Kafka.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any


def main() -> int:
    """0: done, as far as it could be."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    told: dict[str, Any] = json.load(sys.stdin)

    from penstock.deaths import Toll  # noqa: PLC0415 (signals first)
    from penstock.error_text import said  # noqa: PLC0415
    from penstock.kafka.last_will import Dead, leave_word  # noqa: PLC0415
    from penstock.settings_wire import from_wire  # noqa: PLC0415
    from penstock.telemetry import logs  # noqa: PLC0415

    settings = from_wire(told["settings"])
    logs.configure(settings.log_format, settings.log_level, process="last-will")
    tolls = [Toll.from_json(each) for each in told["tolls"]]
    taken: list[str] = []
    try:
        taken = leave_word(settings, Dead(*told["dead"]), tolls, float(told["seconds"]))
    except Exception as error:
        import structlog  # noqa: PLC0415

        structlog.get_logger("penstock.worker").info(
            "the group was not told of a death now; the next worker does", error=said(error)
        )
    sys.stdout.write(json.dumps(taken))
    return 0


if __name__ == "__main__":
    sys.exit(main())
