from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.channel import Channel, Message

Ends = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The supervisor's end and the worker's."""
    ours, theirs = Channel.pair()
    worker = Channel(theirs)
    yield ours, worker
    ours.close()
    worker.close()


@pytest.fixture
def raw() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_both_ways(ends: Ends) -> None:
    ours, worker = ends
    assert ours.send("drain", restart=True, seat="keep", seconds=2.5)
    assert worker.send("status", lag={"orders": {"0": 3}})
    assert worker.receive() == [{"t": "drain", "restart": True, "seat": "keep", "seconds": 2.5}]
    assert ours.receive() == [{"t": "status", "lag": {"orders": {"0": 3}}}]
    assert ours.receive() == []
    assert not ours.ended


def test_several_messages_in_one_read(ends: Ends) -> None:
    ours, worker = ends
    for number in range(50):
        worker.send("status", n=number)
    assert [m["n"] for m in ours.receive()] == list(range(50))


def test_a_message_in_pieces(raw: tuple[Channel, socket.socket]) -> None:
    ours, theirs = raw
    line = json.dumps({"t": "status", "who": "Zoë"}, ensure_ascii=False).encode() + b"\n"
    for number in range(len(line) - 1):
        theirs.send(line[number : number + 1])
        assert ours.receive() == []
    theirs.send(line[-1:] + b'{"t":"hel')
    assert ours.receive() == [{"t": "status", "who": "Zoë"}]
    theirs.send(b'lo"}\n')
    assert ours.receive() == [{"t": "hello"}]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3)
        | st.binary(max_size=30).filter(lambda b: b"\n" not in b),
        max_size=8,
    ),
    st.integers(1, 40),
)
def test_whatever_comes_in_whatever_pieces(items: list[object], size: int) -> None:
    stream, expected = b"", []
    for item in items:
        line = item if isinstance(item, bytes) else json.dumps(item).encode()
        stream += line + b"\n"
        if not isinstance(item, bytes):
            expected.append(item)
    ours, theirs = Channel.pair()
    got: list[Message] = []
    for start in range(0, len(stream), size):
        theirs.send(stream[start : start + size])
        got += ours.receive()
    theirs.close()
    assert all(type(m) is dict for m in got)
    assert [m for m in got if m in expected] == expected
    assert ours.receive() == []
    assert ours.ended
    ours.close()


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[1]", b"7", b"null", b"\xff\xfe", b'{"t":', b"[" * 9999]
)
def test_garbage_is_left_out(raw: tuple[Channel, socket.socket], garbage: bytes) -> None:
    ours, theirs = raw
    theirs.send(garbage + b'\n{"t":"drained"}\n')
    assert ours.receive() == [{"t": "drained"}]
    assert not ours.ended


def test_the_end_of_the_stream_comes_after_the_last_words(ends: Ends) -> None:
    ours, worker = ends
    worker.send("drained", code=0)
    worker.close()
    assert ours.receive() == [{"t": "drained", "code": 0}]
    assert ours.ended
    assert ours.receive() == []
    assert not ours.send("drain")


def test_a_line_without_an_end_is_no_message(raw: tuple[Channel, socket.socket]) -> None:
    ours, theirs = raw
    theirs.send(b'{"t":"drained"}')
    theirs.close()
    assert ours.receive() == []
    assert ours.ended


def test_a_line_that_is_too_long_is_left_out(
    raw: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.channel._LONGEST", 1000)
    ours, theirs = raw
    for _ in range(3):  # however long it is, nothing of it is kept
        theirs.send(b"x" * 1001)
        assert ours.receive() == []
        assert not ours._buffer
    theirs.send(b'x"}\n{"t":"status"}\n')
    assert ours.receive() == [{"t": "status"}]
    assert (ours.garbled, ours.ended) == (1, False)


def fill(channel: Channel) -> int:
    """Send until the other end's buffer is full; tells how many were taken."""
    taken = 0
    while channel.send("status", filler="x" * 5000, n=taken):
        taken += 1
    return taken


def test_a_worker_does_not_wait_long_for_a_supervisor_that_is_behind(ends: Ends) -> None:
    ours, worker = ends
    before = time.monotonic()
    taken = fill(worker)
    assert 0.5 < time.monotonic() - before < 3.0
    assert [m["n"] for m in ours.receive()] == list(range(taken))
    assert worker.send("drained", code=4)
    assert worker.send("bye")
    # The cut line is lost; what follows it must not be.
    assert ours.receive() == [{"t": "drained", "code": 4}, {"t": "bye"}]
    assert not ours.ended


def test_a_supervisor_does_not_wait_at_all(ends: Ends) -> None:
    ours, worker = ends
    before = time.monotonic()
    taken = fill(ours)
    assert time.monotonic() - before < 0.5
    assert len(worker.receive()) == taken
    assert ours.send("drain", restart=False)
    assert worker.receive() == [{"t": "drain", "restart": False}]


def test_threads_do_not_mix_their_lines(ends: Ends) -> None:
    ours, worker = ends

    def send(name: str) -> None:
        for number in range(100):
            assert worker.send("status", who=name, n=number, filler="y" * 100)

    threads = [threading.Thread(target=send, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    got: list[Message] = []
    with selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        while len(got) < 400:
            assert selector.select(5.0), len(got)
            got += ours.receive()
    for thread in threads:
        thread.join()
    for name in "0123":
        assert [m["n"] for m in got if m["who"] == name] == list(range(100))
