from __future__ import annotations

import os
import select
import signal

from penstock.wake import WakePipe


def test_signals_come_in_order_and_wakes_are_left_out() -> None:
    pipe = WakePipe()
    assert pipe.drain() == []
    os.write(pipe.writer, bytes([signal.SIGTERM]))
    pipe.wake()
    os.write(pipe.writer, bytes([signal.SIGUSR2]))
    assert select.select([pipe], [], [], 0)[0] == [pipe]
    assert pipe.drain() == [signal.SIGTERM, signal.SIGUSR2]
    assert select.select([pipe], [], [], 0)[0] == []


def test_a_full_pipe_is_awake_enough() -> None:
    pipe = WakePipe()
    for _ in range(100_000):
        pipe.wake()
    assert select.select([pipe], [], [], 0)[0] == [pipe]
