"""``python -m penstock.worker``: started by the supervisor, never by hand."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time

from penstock import held, streams
from penstock.channel import Channel
from penstock.steps import Steps
from penstock.worker import deaf


def main(argv: list[str]) -> int:
    """Arguments: index, channel fd, board fd, stacks fd, MODULE:APP."""
    steps = Steps(time.monotonic, began=time.monotonic())
    index, channel_fd, board_fd, stacks_fd = map(int, argv[:4])
    target = argv[4]
    deaf.become()
    # Written by C code that needs no GIL: the last resort when a handler holds it for ever.
    faulthandler.register(signal.SIGUSR1, file=stacks_fd, all_threads=True)
    faulthandler.enable()  # a segmentation fault says where
    held.release()
    streams.forgive()
    channel = Channel(socket.socket(fileno=channel_fd))

    # Imported late: a worker that is told why it failed must be able to say so.
    from penstock.errors import ConfigError  # noqa: PLC0415
    from penstock.kafka import credentials  # noqa: PLC0415
    from penstock.loading import load_app  # noqa: PLC0415
    from penstock.plan import plans  # noqa: PLC0415
    from penstock.settings_wire import to_wire  # noqa: PLC0415
    from penstock.telemetry import logs  # noqa: PLC0415

    env = os.environ
    logs.configure(
        env.get("PENSTOCK_LOG_FORMAT") or "json",
        env.get("PENSTOCK_LOG_LEVEL") or "INFO",
        process=f"worker-{index}",
    )
    try:
        every_plan = plans(load_app(target))
        credentials.check(every_plan[0].settings)
        the_plan = every_plan[index % len(every_plan)]
    except ConfigError as error:
        channel.send("fatal", code=error.exit_code, reason=str(error))
        return error.exit_code
    settings = the_plan.settings
    logs.configure(settings.log_format, settings.log_level, process=f"worker-{index}")

    channel.send(
        "hello",
        settings=to_wire(settings),
        concurrency=the_plan.concurrency,
        subscriptions=[
            {
                "name": each.name,
                "group": each.group,
                "topics": list(each.topics) or [each.reads],
                "pattern": each.pattern is not None,
            }
            for each in every_plan
        ],
    )
    # The supervisor opens its port meanwhile.
    from penstock.board import Board  # noqa: PLC0415
    from penstock.kafka.engine import connector, seat  # noqa: PLC0415
    from penstock.worker.process import Worker  # noqa: PLC0415

    steps.mark("imports")
    board = Board(board_fd, the_plan.concurrency)
    connect, give_up = connector(the_plan, index), seat(the_plan, index)
    return Worker(the_plan, board, channel, connect, steps, give_up).run()


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except BaseException:  # the interpreter would say the same, and wait for threads first
        sys.excepthook(*sys.exc_info())
        code = 1
    from penstock.worker.leaving import leave

    leave(code)
