from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import offset_map
from penstock.offset_map import ALWAYS, LIMIT, SPAN, BadMap, decode, encode, fits

POSITIONS = st.integers(0, 2**62)
NEAR = st.sets(st.integers(0, 300), max_size=200)
FAR = st.sets(st.integers(0, 2**61), max_size=ALWAYS)


@given(POSITIONS, NEAR | FAR)
@example(0, {0})
@example(7, set(range(SPAN)))
@example(7, set(range(0, SPAN, 2)))
def test_what_goes_in_comes_out(position: int, beyond: set[int]) -> None:
    finished = {position + offset for offset in beyond}
    text = encode(position, finished)
    assert len(text) <= LIMIT
    assert text.isascii()
    assert decode(position, text) == finished


@given(POSITIONS, st.lists(st.integers(0, 2**61) | st.integers(0, SPAN + 10)), st.data())
def test_what_was_let_through_always_fits(
    position: int, wanted: list[int], data: st.DataObject
) -> None:
    let = list[int]()
    for beyond in dict.fromkeys(wanted):
        if fits(position, position + max([*let, beyond]), len(let) + 1):
            let.append(beyond)
    done = data.draw(st.sets(st.sampled_from(let))) if let else set()
    finished = {position + beyond for beyond in done}
    assert decode(position, encode(position, finished)) == finished


def test_the_most_that_is_let_through_fits() -> None:
    assert fits(0, SPAN - 1, SPAN)
    assert not fits(0, SPAN, ALWAYS + 1)
    assert encode(0, set(range(1, SPAN, 2)))
    far = {n * 2**55 for n in range(1, ALWAYS + 1)}
    assert fits(0, max(far), ALWAYS)
    assert decode(0, encode(0, far)) == far


def test_it_is_compact() -> None:
    slow = set(range(5, 10_000)) - {500, 7_000}
    assert len(encode(5 - 1, slow)) < 40
    every_other = set(range(1, 10_000, 2))
    assert len(encode(0, every_other)) < 10_000 / 8 * 4 / 3 + 20


def test_too_much_is_refused_and_not_cut_off() -> None:
    with pytest.raises(ValueError, match="do not fit into 3000 bytes"):
        encode(0, set(range(1, 3 * SPAN, 2)))
    with pytest.raises(ValueError, match="offset 3 is before the position 4"):
        encode(4, {3, 5})


@pytest.mark.parametrize("text", ["", "consumed by something else", "penstock2:AAAA"])
def test_what_others_wrote_says_nothing(text: str) -> None:
    assert decode(3, text) == frozenset()


def raw(content: bytes) -> str:
    return "penstock1:" + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "text",
    [
        "penstock1:",
        "penstock1:!!!",
        "penstock1:Ug=",
        raw(b"X123"),
        raw(b"R\x80"),
        raw(b"R\x01"),
        raw(b"R\x00\xff\xff\xff\xff\xff\x7f"),
        raw(b"R" + b"\x00\xff\xff\xff\x03" * 4),
        "penstock1:" + "A" * LIMIT,
    ],
)
def test_damage_is_told(text: str) -> None:
    with pytest.raises(BadMap):
        decode(0, text)


@given(st.binary(max_size=200))
def test_no_damage_does_worse_than_that(content: bytes) -> None:
    try:
        found = decode(10, raw(content))
    except BadMap:
        return
    assert all(offset >= 10 for offset in found)


def test_limits_hold_together() -> None:
    assert LIMIT < 4096
    assert SPAN > 16_000
    assert ALWAYS > 100
    assert offset_map._RAW * 8 == SPAN
