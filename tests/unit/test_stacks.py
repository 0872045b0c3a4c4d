from __future__ import annotations

import faulthandler
import threading
from pathlib import Path

import pytest

from penstock import stacks
from penstock.board import Board
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher
from tests.unit.making import PATIENCE, make_plan, orders, records


def waits_here(started: threading.Event, ended: threading.Event) -> None:
    started.set()
    ended.wait(PATIENCE)


def test_where_a_thread_stands() -> None:
    started, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=waits_here, args=(started, ended), name="handler-7")
    thread.start()
    assert started.wait(PATIENCE)
    stack = stacks.of_thread("handler-7")
    assert stack is not None
    assert "in waits_here" in stack
    assert "in waits_here" in stacks.of_all()["handler-7"]
    ended.set()
    thread.join()
    assert stacks.of_thread("handler-7") is None


def test_our_own() -> None:
    assert "test_our_own" in stacks.of_all()[threading.current_thread().name]


IDLE = """Thread 0x2 (most recent call first):
  File "/lib/python3.11/threading.py", line 320 in wait
  File "/lib/penstock/worker/dispatch.py", line 130 in wait
  File "/lib/penstock/worker/threads.py", line 68 in _work"""


def in_handler(runner: str, *between: str) -> str:
    return "\n".join(
        [
            "Thread 0x1 (most recent call first):",
            '  File "/app/shop.py", line 3 in charge',
            *between,
            f'  File "/lib/penstock/worker/{runner}',
            '  File "/lib/penstock/worker/threads.py", line 72 in _work',
        ]
    )


@pytest.mark.parametrize(
    "runner",
    [
        'threads.py", line 92 in _run',
        'threads.py", line 115 in _run_batch',
        'coroutines.py", line 151 in _run',
        'coroutines.py", line 178 in _run_batch',
    ],
)
def test_only_the_threads_inside_a_handler(runner: str) -> None:
    handler = in_handler(runner)
    found = stacks.of_handlers(f"{IDLE}\n\n{handler}")
    assert found == handler.rpartition("\n")[0]
    assert stacks.of_handlers(IDLE) == IDLE
    assert stacks.of_handlers("") == ""


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_dump_of_real_runners_is_cut_down_to_the_handler(
    tmp_path: Path, *, asynchronous: bool, batch: bool, timeout: float | None
) -> None:
    """The pattern names functions; renaming one of them must not go unnoticed."""
    started, ended = threading.Event(), threading.Event()

    async def blocks_the_loop(_given: object) -> None:
        waits_here(started, ended)

    def blocks(_given: object) -> None:
        waits_here(started, ended)

    handler = blocks_the_loop if asynchronous else blocks
    plan = make_plan(handler, concurrency=2, batch=batch, timeout=timeout)
    board = Board.create(2)
    dispatcher = Dispatcher(plan, board, Tally())
    dispatcher.start()
    try:
        dispatcher.assigned({orders(0): None})
        dispatcher.feed({orders(0): records(0, 0)})
        assert started.wait(PATIENCE)
        with (tmp_path / "dump").open("w+") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            found = stacks.of_handlers(file.read())
    finally:
        ended.set()
        dispatcher.drain()
        assert dispatcher.end(PATIENCE)
        board.close()
    assert found.count("most recent call first") == 1
    assert f"in {handler.__name__}" in found
    last = found.splitlines()[-1]
    assert last.endswith("in _run_batch" if batch else "in _run")
    assert ("coroutines.py" if asynchronous else "threads.py") in last
