"""``penstock run``: the first milliseconds. Signals, then workers, then everything heavy."""

from __future__ import annotations

import os

from penstock import held, streams
from penstock.supervisor import descendants, signals
from penstock.supervisor.spawn import Spawned, workers_hint
from penstock.wake import WakePipe


def run(target: str) -> int:
    """Run the service for ``MODULE:APP`` until it ends; exits with its code.

    The workers import the application and the Kafka client while this process imports the
    web server: on two cores that is a third of the restart gap.
    """
    pipe = WakePipe()
    signals.install(pipe)
    first = [Spawned(index, target) for index in range(workers_hint())]
    held.release()
    since = descendants.adopt(first[0].popen.pid)
    from penstock.supervisor.service import Supervisor  # noqa: PLC0415 (see above)

    code = Supervisor(target, pipe, first).run()
    descendants.end_the_rest(since)
    # Everything is closed, joined and written down. Taking the interpreter apart, object by
    # object, would only make the restart gap longer. What is still buffered is of no one here:
    # logs are written line by line.
    streams.flush()
    os._exit(code)
