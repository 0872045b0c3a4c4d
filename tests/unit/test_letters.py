"""Dead letters: their headers there and back, the filters, and what people are shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import dlq, letter_text, letters, offset_map
from penstock.kafka import letter_box
from penstock.letter_filter import Filter, Span, Stored, moment, position, span
from penstock.letters import (
    FIELDS,
    PREFIX,
    REASON_LIMIT,
    SHORT_REASON,
    TRACEBACK_LIMIT,
    Detail,
    Letter,
    Origin,
    headers,
    origin,
    original,
    replayed,
)
from penstock.record import Record

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "dead-letters.md").read_text()
NOW = 1_800_000_000.0


def record(**changes: Any) -> Record:
    return Record("orders", 3, 17, 1_700_000_000_000, b"k", b"v", [("a", b"1")])._replace(**changes)


def letter(**changes: Any) -> Letter:
    fields: dict[str, Any] = {
        "record": record(),
        "topic": "orders.dead",
        "reason": "no stock",
        "error": "shop.OutOfStock",
        "traceback": "Traceback …\n",
        "attempts": 5,
        "group": "billing",
        "at": NOW,
    }
    return Letter(**fields | changes)


def ours(found: list[tuple[str, bytes | None]]) -> dict[str, bytes | None]:
    return {name: value for name, value in found if name.startswith(PREFIX)}


# -- headers ---------------------------------------------------------------------------


def test_headers_are_the_records_own_and_then_ours() -> None:
    own = [("b", None), ("a", b"\xff"), ("b", b""), ("penstock.other", b"x")]
    found = headers(letter(record=record(headers=own)))
    assert found == [
        *own,
        ("penstock.dlq.topic", b"orders"),
        ("penstock.dlq.partition", b"3"),
        ("penstock.dlq.offset", b"17"),
        ("penstock.dlq.timestamp", b"1700000000000"),
        ("penstock.dlq.group", b"billing"),
        ("penstock.dlq.reason", b"no stock"),
        ("penstock.dlq.error", b"shop.OutOfStock"),
        ("penstock.dlq.attempts", b"5"),
        ("penstock.dlq.at", b"2027-01-15T08:00:00.000Z"),
        ("penstock.dlq.traceback", "Traceback …\n".encode()),
    ]


def test_the_fields_that_are_documented_are_the_headers() -> None:
    again = record(headers=[(PREFIX + "rounds", b"1")])
    names = [name for name, _ in headers(letter(record=again))]
    assert names == [PREFIX + name for name in FIELDS]


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
own_headers = st.lists(
    st.tuples(texts.filter(lambda n: not n.startswith(PREFIX)), st.none() | st.binary()), max_size=5
)


@given(
    own=own_headers,
    topic=st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True),
    numbers=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)),
    timestamp=st.integers(-1, 2**53),
    words=st.tuples(texts, texts, texts, texts),
    attempts=st.integers(1, 10**9),
    at=st.integers(0, 4_000_000_000_000),
)
def test_what_is_written_is_read_back(
    own: list[tuple[str, bytes | None]],
    topic: str,
    numbers: tuple[int, int],
    timestamp: int,
    words: tuple[str, str, str, str],
    attempts: int,
    at: int,
) -> None:
    reason, error, traceback, group = words
    sent = letter(
        record=Record(topic, *numbers, timestamp, None, None, own),
        reason=reason,
        error=error,
        traceback=traceback,
        group=group,
        attempts=attempts,
        at=at / 1000,
    )
    found = headers(sent)
    assert original(found) == own
    back = origin(found)
    assert back is not None
    assert (back.topic, back.partition, back.offset) == (topic, *numbers)
    assert (back.timestamp, back.attempts) == (timestamp, attempts)
    assert back.at == pytest.approx(at / 1000, abs=0.001)
    assert "\n" not in back.reason
    if len(" ".join(reason.split())) <= REASON_LIMIT:
        assert back.reason == " ".join(reason.split())
    if len(traceback.encode()) <= TRACEBACK_LIMIT:
        assert back.traceback == traceback
    assert back.group == group


def test_text_that_utf8_cannot_hold_is_escaped() -> None:
    back = origin(headers(letter(reason="a \ud800 b")))
    assert back is not None
    assert back.reason == "a \\ud800 b"


@pytest.mark.parametrize("character", ["x", "ü", "𝄞"])
def test_a_long_traceback_keeps_its_end(character: str) -> None:
    for extra in range(4):
        text = "first" + character * 9_000 + "e" * extra + "the end"
        value = ours(headers(letter(traceback=text)))[PREFIX + "traceback"]
        assert value is not None
        assert TRACEBACK_LIMIT - 4 < len(value) <= TRACEBACK_LIMIT
        kept = value.decode()  # no character is cut in two
        assert kept.startswith("…\n")
        assert text.endswith(kept.removeprefix("…\n"))


def test_a_letter_that_is_too_large_loses_words_but_never_its_origin() -> None:
    sent = letter(reason="r " * 600, traceback="t" * 100)
    full, brief, short = (origin(headers(sent, detail)) for detail in Detail)
    assert full is not None
    assert brief is not None
    assert short is not None
    assert [len(o.traceback) for o in (full, brief, short)] == [100, 0, 0]
    assert [len(o.reason) for o in (full, brief, short)] == [REASON_LIMIT] * 2 + [SHORT_REASON]
    assert [str(o) for o in (full, brief, short)] == ["orders[3]@17"] * 3
    assert short.error == "shop.OutOfStock"


def test_a_second_death_replaces_our_headers() -> None:
    dead = record()
    first = headers(letter(record=dead))
    for death in range(5):
        found = headers(letter(record=dead))
        assert [name for name, _ in found] == [name for name, _ in first]
        assert original(found) == [("a", b"1")]
        dead = record(topic="orders.dead", partition=0, offset=death, headers=found)
    again = origin(headers(letter(record=dead)))
    assert again is not None
    assert (again.topic, again.offset) == ("orders.dead", 4)


def test_what_is_replayed_is_a_record_again_and_no_letter() -> None:
    own = [("a", b"1"), ("b", None), ("a", b"\xff")]
    back = replayed(headers(letter(record=record(headers=own))))
    assert back == [*own, ("penstock.dlq.rounds", b"1")]
    assert origin(back) is None


def test_rounds_are_counted_from_letter_to_letter() -> None:
    dead = record()
    for rounds in range(4):
        found = headers(letter(record=dead))
        told = origin(found)
        assert told is not None
        assert told.rounds == rounds
        assert (PREFIX + "rounds" in ours(found)) == (rounds > 0)
        assert original(found) == [("a", b"1")]
        dead = record(headers=replayed(found))


@pytest.mark.parametrize("said", [b"", b"many", b"-3", b"1" * 20, None])
def test_rounds_that_are_no_number_are_none(said: bytes | None) -> None:
    found = [*headers(letter()), (PREFIX + "rounds", said)]
    told = origin(found)
    assert told is not None
    assert told.rounds == 0
    assert replayed(found)[-1] == (PREFIX + "rounds", b"1")


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": None},
        {"topic": b""},
        {"partition": None},
        {"partition": b"x"},
        {"offset": b"1" * 20},
        {"offset": "\N{ARABIC-INDIC DIGIT ONE}".encode()},  # a digit, but not one of ours
        {"offset": b""},
    ],
)
def test_what_is_not_a_letter_of_ours_is_none(changes: dict[str, bytes | None]) -> None:
    found = dict(headers(letter()))
    for name, value in changes.items():
        found[PREFIX + name] = value
    assert origin(list(found.items())) is None
    assert origin([]) is None


def test_damaged_details_leave_the_origin_readable() -> None:
    found: dict[str, bytes | None] = {
        **dict(headers(letter())),
        PREFIX + "attempts": b"many",
        PREFIX + "rounds": b"\xff",
        PREFIX + "at": b"yesterday",
        PREFIX + "timestamp": None,
        PREFIX + "reason": b"\xff",
    }
    read = origin(list(found.items()))
    assert read is not None
    assert (read.attempts, read.at, read.timestamp, read.reason) == (0, None, -1, "\ufffd")
    assert str(read) == "orders[3]@17"


# -- filters ---------------------------------------------------------------------------


def stored(sent: Letter | None = None, *, settled: bool = False, **changes: Any) -> Stored:
    found = headers(sent or letter())
    place = Record("orders.dead", 1, 42, int(NOW * 1000) + 5_000, b"k", b"v", found)
    place = place._replace(**changes)
    return Stored(place, origin(place.headers), settled)


FOREIGN = stored(headers=[("x", b"y")], key=b"\xff")


@pytest.mark.parametrize(
    ("given", "meant", "foreign"),
    [
        ({}, True, True),
        ({"topic": "orders"}, True, False),
        ({"topic": "order"}, False, False),
        ({"partition": 3}, True, False),
        ({"partition": 1}, False, False),
        ({"partition": 0}, False, False),
        ({"spans": (Span(1, 42, 42), Span(0, 1, 1))}, True, True),
        ({"spans": (Span(1, 40, 42),)}, True, True),
        ({"spans": (Span(1, 42, 50),)}, True, True),
        ({"spans": (Span(1, 40, 41), Span(1, 43, 50))}, False, False),
        ({"spans": (Span(0, 0, 99),)}, False, False),
        ({"group": "billing"}, True, False),
        ({"group": "bill"}, False, False),
        ({"error": "OutOfStock"}, True, False),
        ({"error": "shop.OutOfStock"}, True, False),
        ({"error": "Stock"}, False, False),
        ({"reason": "NO st"}, True, False),
        ({"reason": "card"}, False, False),
        ({"key": "k"}, True, False),
        ({"key": "0xff"}, False, True),
        ({"since": NOW}, True, True),
        ({"since": NOW + 1}, False, True),  # a foreign one has its record's time
        ({"until": NOW}, False, False),
        ({"until": NOW + 1}, True, False),
        ({"topic": "orders", "key": "other"}, False, False),
    ],
)
def test_filters(given: dict[str, Any], meant: bool, foreign: bool) -> None:
    chosen = Filter(**given)
    assert bool(chosen) is bool(given)
    assert chosen(stored()) is meant
    assert chosen(FOREIGN) is foreign


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", NOW - 90),
        ("1.5h", NOW - 5_400),
        ("7d", NOW - 604_800),
        ("2027-01-15T08:00", NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00+01:00", NOW),
        ("2027-01-15", NOW - 8 * 3_600),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "soon", "2027-13-01", "9999999999d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="neither a time"):
        moment(text, NOW)


def test_positions() -> None:
    assert position("3:1042") == (3, 1042)
    assert span("3:1042") == (3, 1042, 1042)
    assert span("3:1042-1100") == (3, 1042, 1100)
    for text in ("3:1042", "3:1042-1100"):
        assert str(span(text)) == text
    for text in ("3", "3:", ":4", "3:-1", "3:4:5", "a:1", "³:1", "3:1\n", "3:5-4", "3:5-"):
        for read in (position, span):
            with pytest.raises(ValueError, match="PARTITION:OFFSET"):
                read(text)
    with pytest.raises(ValueError, match="PARTITION:OFFSET"):
        position("3:1-2")


# -- what is shown ---------------------------------------------------------------------


def table(*shown: Stored, states: bool = False, width: int | None = None) -> str:
    rows = [letter_text.row(each, states=states) for each in shown]
    return letter_text.table(rows, states=states, width=width)


def test_the_table_has_a_row_a_letter() -> None:
    lines = table(stored(), FOREIGN).splitlines()
    assert " ".join(lines[0].split()) == "AT SINCE FROM KEY ATTEMPTS ROUNDS ERROR REASON"
    assert lines[1].split(maxsplit=7) == [
        "1:42",
        "2027-01-15T08:00:00Z",
        "orders[3]@17",
        "k",
        "5",
        "0",
        "shop.OutOfStock",
        "no stock",
    ]
    assert lines[2].split(maxsplit=7)[2:] == ["-", "0xff", "-", "-", "-", "(not a letter)"]
    states = table(stored(settled=True), stored(), states=True).splitlines()
    assert [line.split()[1] for line in states] == ["STATE", "done", "open"]


def test_the_table_fits_the_terminal() -> None:
    wide = stored(letter(reason="no stock " * 100), key=b"k" * 1_000)
    head, row = table(wide, width=180).splitlines()
    assert head.startswith("AT")
    assert len(row) == 180
    assert row.endswith("…")
    assert "k" * 39 + "…  " in row
    assert len(table(wide, width=20).splitlines()[1]) == head.index("REASON") + 40
    assert "no stock " * 99 in table(wide)  # whoever pipes it gets all


def test_letters_are_counted_by_reasons_that_name_their_own_record() -> None:
    said = "is not an Order: amount: Field required"
    several = [
        stored(letter(record=record(offset=n), reason=f"orders[3]@{n} {said}")) for n in range(3)
    ]
    assert {letter_text.trait(each, "reason") for each in several} == {said}
    assert letter_text.trait(stored(), "group") == "billing"
    assert letter_text.trait(FOREIGN, "group") == "(not a letter)"


def test_json_is_one_line_and_tells_foreign_ones_apart() -> None:
    said = letter_text.as_json(stored())
    assert json.loads(json.dumps(said)) == said
    assert said["letter"] is True
    assert (said["at"], said["topic"], said["partition"], said["offset"]) == (
        "1:42",
        "orders",
        3,
        17,
    )
    foreign = letter_text.as_json(FOREIGN)
    assert foreign["letter"] is False
    assert "reason" not in foreign


def test_show_says_everything() -> None:
    one = stored(value=b"\x00\xff" * 20, headers=[("trace", b"t-1"), *headers(letter())])
    text = letter_text.show(one, NOW + 75)
    for part in (
        "orders.dead[1]@42: open",
        "from      orders[3]@17, written 2023-11-14T22:13:20Z",
        "since     2027-01-15T08:00:00Z (1 min 15 s ago)",
        "by        group billing, after 5 attempts",
        "reason    no stock",
        "error     shop.OutOfStock",
        "key       k",
        "headers   trace: t-1",
        "          a: 1",
        "value     40 bytes",
        "00000010  00 ff 00 ff",
        "Traceback …",
    ):
        assert part in text
    assert "penstock.dlq" not in text
    assert "rounds" not in text
    again = stored(letter(record=record(headers=[(PREFIX + "rounds", b"2")])))
    assert "rounds    replayed 2 times before, and put aside again" in letter_text.show(again, NOW)
    assert letter_text.as_json(again)["rounds"] == 2
    assert "none (a tombstone)" in letter_text.show(stored(value=None), NOW)
    assert "not a letter" in letter_text.show(FOREIGN, NOW)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"a": 1}\n', '{"a": 1}\n'),
        ("grün".encode(), "grün"),
        (b"", ""),
        (b"\x1b[31mred", "00000000  1b 5b 33 31 6d 72 65 64" + " " * 24 + "  .[31mred"),
    ],
)
def test_values_are_text_or_hex(value: bytes, shown: str) -> None:
    assert letter_text.content(value) == shown


def test_of_large_values_the_beginning_is_shown() -> None:
    for extra in range(3):  # a character may be cut in two
        value = b"x" * extra + "ü".encode() * 20_000
        shown = letter_text.content(value)
        assert shown.startswith("x" * extra + "üüü")
        assert len(shown) < letter_text.TEXT_LIMIT / 2 + 100
        more = len(value) - letter_text.TEXT_LIMIT
        assert shown.endswith(f"\n… {more:,} bytes more: penstock dlq show --raw")
    assert letter_text.content(b"\xff" * 10_000_000).count("\n") == letter_text.HEX_LIMIT / 16
    exactly = "x" * letter_text.TEXT_LIMIT
    assert letter_text.content(exactly.encode()) == exactly


def test_headers_cannot_drive_the_terminal() -> None:
    evil = letter(reason="\x1b]0;gotcha\x07", error="\x1b[2J", traceback="line\n\x1b[31mred\ttab\n")
    shown = table(stored(evil)) + letter_text.show(stored(evil), NOW)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "line\n\ufffd[31mred\ttab" in shown


@pytest.mark.parametrize("at", [-1.0, 1e18, float("inf")])
def test_what_is_no_time_is_a_dash(at: float) -> None:
    assert letter_text.when(at) == "-"


def test_an_origin_prints_like_a_record() -> None:
    assert str(Origin("orders", 3, 17)) == str(record())
    assert letters.iso(0) == "1970-01-01T00:00:00.000Z"


# -- the page --------------------------------------------------------------------------


def test_commands_on_the_page_are_possible() -> None:
    examples = re.findall(r"penstock dlq (list|show|replay|drop) ([^`\n]*)", PAGE)
    assert len(examples) > 10
    for name, rest in examples:
        known = {option for param in dlq.dlq.commands[name].params for option in param.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= known, rest


def test_options_and_figures_on_the_page_are_the_codes() -> None:
    commands = dlq.dlq.commands.values()
    known = {option for command in commands for param in command.params for option in param.opts}
    prose = re.sub(r"```\n.*?```", "", PAGE, flags=re.DOTALL)
    prose = re.sub(r"`kafka-[^`]*`", "", prose)
    assert set(re.findall(r"--[a-z][\w-]+", prose)) <= known
    assert f"{offset_map.SPAN:,} offsets" in PAGE
    assert f"up to {letter_box.BATCH} letters, one batch" in PAGE
    assert f"Group:{dlq.GROUP}" in PAGE
    largest = letter(
        reason="\N{GOTHIC LETTER AHSA}" * 2_000, error="e" * 999, traceback="t" * 99_999
    )
    size = sum(len(name) + len(value or b"") for name, value in headers(largest))
    assert 12_000 < size < 15_000
    assert "about 15 kB of headers" in PAGE
