from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import offset_map
from penstock.offset_map import (
    ALWAYS,
    DEATHS_LIMIT,
    LIMIT,
    MAP_LIMIT,
    MOST_DEATHS,
    NOTHING,
    SEAL_LIMIT,
    SPAN,
    BadMap,
    Beyond,
    Deaths,
    decode,
    encode,
    fits,
)

POSITIONS = st.integers(0, 2**62)
NEAR = st.sets(st.integers(0, 300), max_size=200)
FAR = st.sets(st.integers(0, 2**61), max_size=ALWAYS)
DEATHS = st.lists(
    st.builds(
        lambda first, more, count, flags: Deaths(first, first + more, count, flags),
        st.integers(0, 300) | st.integers(0, 2**61),
        st.integers(0, 3) | st.integers(0, 2**61),
        st.integers(1, 200) | st.integers(1, 2**31),
        st.integers(0, 127),
    ),
    max_size=2 * MOST_DEATHS,
)


def moved(deaths: list[Deaths], by: int) -> list[Deaths]:
    return [each._replace(first=each.first + by, last=each.last + by) for each in deaths]


@given(POSITIONS, NEAR | FAR, DEATHS.map(lambda all_: all_[:3]))
@example(0, {0}, [])
@example(7, set(range(SPAN)), [])
@example(7, set(range(0, SPAN, 2)), [Deaths(0, 0, 3)])
def test_what_goes_in_comes_out(position: int, beyond: set[int], deaths: list[Deaths]) -> None:
    finished = {position + offset for offset in beyond}
    died = moved(deaths, position)
    text = encode(position, finished, died)
    assert len(text) <= MAP_LIMIT + DEATHS_LIMIT
    assert text.isascii()
    assert ":" not in text
    assert decode(position, text) == Beyond(frozenset(finished), tuple(died))
    assert (not text) == (not finished and not died)


@given(POSITIONS, st.lists(st.integers(0, 2**61) | st.integers(0, SPAN + 10)), DEATHS, st.data())
def test_what_was_let_through_always_fits(
    position: int, wanted: list[int], deaths: list[Deaths], data: st.DataObject
) -> None:
    let = list[int]()
    for beyond in dict.fromkeys(wanted):
        if fits(position, position + max([*let, beyond]), len(let) + 1):
            let.append(beyond)
    done = data.draw(st.sets(st.sampled_from(let))) if let else set()
    finished = {position + beyond for beyond in done}
    text = encode(position, finished, moved(deaths, position))
    assert len(text) <= MAP_LIMIT + DEATHS_LIMIT
    assert decode(position, text).finished == finished


def test_the_most_that_is_let_through_fits() -> None:
    assert fits(0, SPAN - 1, SPAN)
    assert not fits(0, SPAN, ALWAYS + 1)
    assert encode(0, set(range(1, SPAN, 2)))
    far = {n * 2**55 for n in range(1, ALWAYS + 1)}
    assert fits(0, max(far), ALWAYS)
    assert decode(0, encode(0, far)).finished == far


def test_it_is_compact() -> None:
    slow = set(range(5, 10_000)) - {500, 7_000}
    assert len(encode(5 - 1, slow)) < 40
    every_other = set(range(1, 10_000, 2))
    assert len(encode(0, every_other)) < 10_000 / 8 * 4 / 3 + 20
    assert len(encode(0, (), [Deaths(n, n + 3, 2) for n in range(16)])) < 100


def test_too_much_is_refused_and_not_cut_off() -> None:
    with pytest.raises(ValueError, match=f"do not fit into {MAP_LIMIT} bytes"):
        encode(0, set(range(1, 3 * SPAN, 2)))
    with pytest.raises(ValueError, match="offset 3 is before the position 4"):
        encode(4, {3, 5})


@given(POSITIONS, DEATHS)
def test_the_oldest_deaths_give_way(position: int, deaths: list[Deaths]) -> None:
    died = moved(deaths, position)
    text = encode(position, (), died)
    kept = decode(position, text).deaths
    assert len(text) <= DEATHS_LIMIT
    assert list(kept) == died[len(died) - len(kept) :]
    assert len(kept) == len(died) or len(kept) >= 9, "nine always have room"
    assert len(kept) <= MOST_DEATHS


def test_sixteen_usual_deaths_have_room() -> None:
    deaths = [Deaths(5_000 + 100 * n, 5_063 + 100 * n, 3, 1) for n in range(20)]
    assert decode(7, encode(7, (), deaths)).deaths == tuple(deaths[4:])


def test_deaths_before_the_position_are_over() -> None:
    deaths = [Deaths(3, 9, 1), Deaths(8, 10, 2, 1), Deaths(12, 12, 3)]
    text = encode(10, (), deaths)
    assert decode(10, text).deaths == (Deaths(10, 10, 2, 1), Deaths(12, 12, 3))
    assert encode(13, (), deaths) == ""


def test_nothing_to_say_is_no_text() -> None:
    assert encode(5, ()) == ""
    assert decode(5, "") == NOTHING


def raw(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "text",
    [
        "!!!",
        "Ug=",
        "consumed by something else",
        raw(b"X123"),
        raw(b"R\x80"),
        raw(b"R\x01"),
        raw(b"R\x00\xff\xff\xff\xff\xff\x7f"),
        raw(b"R" + b"\x00\xff\xff\xff\x03" * 4),
        "A" * (LIMIT + 1),
        ".!!!",
        "." + raw(b"\x01\x02\x03"),
        "." + raw(b"\x01\x02\x03\x80"),
        "." + raw(b"\x01" * 4 * (MOST_DEATHS + 1)),
    ],
)
def test_damage_is_told(text: str) -> None:
    with pytest.raises(BadMap):
        decode(0, text)


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_no_damage_does_worse_than_that(content: bytes, deaths: bytes) -> None:
    try:
        found = decode(10, f"{raw(content)}.{raw(deaths)}")
    except BadMap:
        return
    assert all(offset >= 10 for offset in found.finished)
    assert all(10 <= each.first <= each.last for each in found.deaths)


def test_limits_hold_together() -> None:
    assert LIMIT < 4096
    assert MAP_LIMIT + DEATHS_LIMIT + SEAL_LIMIT == LIMIT
    assert SPAN > 15_000
    assert ALWAYS > 100
    assert offset_map._RAW * 8 == SPAN
