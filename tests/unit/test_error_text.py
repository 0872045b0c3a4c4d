"""Text about exceptions, whatever they do."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.error_text import (
    TEXT_LIMIT,
    TRACEBACK_LIMIT,
    forget_traceback,
    name_of,
    said,
    text_of,
    traceback_of,
)
from tests.unit.hostile import CRASHES, FAILURES


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("make", [*FAILURES.values(), *CRASHES.values()], ids=[*FAILURES, *CRASHES])
def test_there_is_always_a_text_of_bounded_length_that_can_be_encoded(make: Any) -> None:
    error = raised(make())
    for text, limit in (
        (name_of(error), 200),
        (text_of(error), TEXT_LIMIT * 10),  # a lone surrogate takes six characters
        (said(error), TEXT_LIMIT * 10 + 202),
        (traceback_of(error), TRACEBACK_LIMIT * 10),
    ):
        assert type(text) is str
        assert len(text.encode()) <= limit
    assert name_of(error)
    assert "in raised\n" in traceback_of(error)
    forget_traceback(error)
    assert BaseException.__dict__["__traceback__"].__get__(error) is None


def test_it_reads_as_python_prints_it() -> None:
    def inner() -> None:
        raise KeyError("who")

    try:
        try:
            inner()
        except KeyError as first:
            error = ValueError("not an order")
            error.add_note("as of today")
            raise error from first
    except ValueError as caught:
        text = traceback_of(caught)
    assert text.index("in inner") < text.index("KeyError: 'who'") < text.index("direct cause")
    assert text.index("direct cause") < text.index("raise error from first")
    assert text.endswith("ValueError: not an order\nas of today\n")


def test_what_happened_on_the_way_is_told_unless_it_was_hidden() -> None:
    def fail(*, hide: bool) -> str:
        try:
            try:
                raise KeyError("who")  # noqa: TRY301
            except KeyError:
                if hide:
                    raise ValueError("not an order") from None
                raise ValueError("not an order")  # noqa: B904 (on purpose)
        except ValueError as error:
            return traceback_of(error)

    assert "KeyError" in fail(hide=False)
    assert "During handling of the above exception" in fail(hide=False)
    assert "KeyError" not in fail(hide=True)


def test_members_of_groups_are_told() -> None:
    text = traceback_of(ExceptionGroup("two", [ValueError("one"), KeyError("other")]))
    assert text.splitlines() == [
        "ExceptionGroup: two (2 sub-exceptions)",
        "  +-------- 1 of 2 --------",
        "  | ValueError: one",
        "  +-------- 2 of 2 --------",
        "  | KeyError: 'other'",
    ]


def test_a_deep_stack_is_shown_from_both_ends() -> None:
    def sink(depth: int) -> None:
        if depth:
            sink(depth - 1)
        raise ValueError("at the bottom")

    try:
        sink(200)
    except ValueError as error:
        text = traceback_of(error)
    assert "sink(200)" in text
    assert "more …" in text
    assert text.count("in sink") < 40
    assert text.endswith("ValueError: at the bottom\n")
