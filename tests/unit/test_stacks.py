from __future__ import annotations

import threading
from pathlib import Path

from penstock import stacks
from tests.unit.making import PATIENCE


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


HANDLER = """Thread 0x1 (most recent call first):
  File "/app/shop.py", line 3 in charge
  File "/lib/penstock/worker/dispatch.py", line 180 in _handle
  File "/lib/penstock/worker/dispatch.py", line 120 in _work"""
IDLE = """Thread 0x2 (most recent call first):
  File "/lib/penstock/worker/dispatch.py", line 150 in _next"""


def test_only_the_threads_inside_a_handler() -> None:
    found = stacks.of_handlers(f"{IDLE}\n\n{HANDLER}")
    assert found == HANDLER.rpartition("\n")[0]
    assert stacks.of_handlers(IDLE) == IDLE
    assert stacks.of_handlers("") == ""


def test_the_frame_that_is_looked_for_exists() -> None:
    """The pattern names a function; renaming that one must not go unnoticed."""
    source = Path(stacks.__file__).parent / "worker" / "dispatch.py"
    assert "def _handle(" in source.read_text()
    assert stacks._HANDLING.search('penstock/worker/dispatch.py", line 1 in _handle')
