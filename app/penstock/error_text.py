"""What an exception says, as text that always exists, is bounded, and can be encoded.

An exception comes from the user's code, and may be anything: its ``__str__`` may raise, return
a megabyte, or text that is no Unicode; its class may lie about its name; its causes may go
round in a circle, and its traceback grows each time the same object is raised. Whatever is
logged, committed, journaled or put into a dead letter about an exception is made here. No
function of this module raises, and none asks the object itself where the interpreter knows
the answer.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

#: Characters of an exception's own text at most. The beginning is kept.
TEXT_LIMIT: Final = 2_000
#: Characters of a traceback at most. The end is kept: that is where the error is.
TRACEBACK_LIMIT: Final = 16_000
_NAME_LIMIT: Final = 200
#: Exceptions of a chain of causes, and of a group, and how deep groups lie in groups.
_CHAIN: Final = 8
_MEMBERS: Final = 5
_DEPTH: Final = 3
#: Frames shown of each traceback, from both of its ends; and how many are looked at.
_FRAMES: Final = 15
_WALK: Final = 10_000

_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def name_of(error: BaseException) -> str:
    """The name of its class."""
    try:
        return _clean(type.__dict__["__name__"].__get__(type(error)), _NAME_LIMIT)
    except BaseException:  # the class is the user's
        return "an exception"


def text_of(error: BaseException) -> str:
    """What it says of itself; instead, in brackets, why that cannot be had."""
    try:
        return _clean(str(error), TEXT_LIMIT)
    except BaseException as raised:  # whatever its __str__ does
        return f"(its text cannot be had: {name_of(raised)})"


def said(error: BaseException) -> str:
    """The name of its class, and what it says if it says something."""
    text = text_of(error)
    return f"{name_of(error)}: {text}" if text else name_of(error)


def traceback_of(error: BaseException) -> str:
    """As Python prints it, with causes and the members of groups, as far as there is room."""
    try:
        text = "".join(_chain(error, 0))
        if len(text) > TRACEBACK_LIMIT:
            text = "…\n" + text[2 - TRACEBACK_LIMIT :]
        return _clean(text, TRACEBACK_LIMIT)
    except BaseException:  # causes and groups are the user's, too
        return f"{said(error)}\n"


def forget_traceback(error: BaseException) -> None:
    """Let go of the frames: the next raise of the same object would add to them."""
    _set(error, "__traceback__", None)


def _clean(text: str, limit: int) -> str:
    """A plain ``str`` without lone surrogates; ``text`` may be of a class of the user's."""
    kept = str.__getitem__(text, slice(limit))
    if str.__len__(text) > limit:
        kept = kept[:-1] + "…"
    return kept.encode(errors="backslashreplace").decode()


def _get(error: BaseException, name: str) -> Any:
    return BaseException.__dict__[name].__get__(error)


def _set(error: BaseException, name: str, value: object) -> None:
    BaseException.__dict__[name].__set__(error, value)


def _chain(error: BaseException, depth: int) -> Iterator[str]:
    """The first cause first. Longer chains, and circles, are cut."""
    links: list[tuple[BaseException, str]] = [(error, "")]  # with what leads on from it
    seen = {id(error)}
    while len(links) < _CHAIN:
        last = links[-1][0]
        before, how = _get(last, "__cause__"), _CAUSE
        if before is None and not _get(last, "__suppress_context__"):
            before, how = _get(last, "__context__"), _CONTEXT
        if before is None or id(before) in seen:
            break
        seen.add(id(before))
        links.append((before, how))
    for each, how in reversed(links):
        yield from _one(each, depth)
        yield how


def _one(error: BaseException, depth: int) -> Iterator[str]:
    yield from _stack(_get(error, "__traceback__"))
    yield f"{said(error)}\n"
    notes = _get(error, "__dict__").get("__notes__") or ()
    for note in list(notes)[:_MEMBERS] if type(notes) is list else ():
        if type(note) is str:
            yield f"{_clean(note, TEXT_LIMIT)}\n"
    if depth < _DEPTH and issubclass(type(error), BaseExceptionGroup):
        members = BaseExceptionGroup.__dict__["exceptions"].__get__(error)
        for number, member in enumerate(members[:_MEMBERS], 1):
            yield f"  +-------- {number} of {len(members)} --------\n"
            for line in "".join(_chain(member, depth + 1)).splitlines():
                yield f"  | {line}\n"


def _stack(trace: TracebackType | None) -> Iterator[str]:
    if trace is None:
        return
    first: list[Any] = []
    last: deque[Any] = deque(maxlen=_FRAMES)
    count = 0
    while trace is not None and count < _WALK:
        (first if count < _FRAMES else last).append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
        count += 1
    yield "Traceback (most recent call last):\n"
    yield from _frames(first)
    if count > len(first) + len(last):
        yield f"  … {count - len(first) - len(last)} more …\n"
    yield from _frames(list(last))


def _frames(frames: list[Any]) -> list[str]:
    try:
        return traceback.StackSummary.extract(iter(frames)).format()
    except BaseException:  # a loader of the user's that cannot show its source
        return [
            f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
            for frame, line in frames
        ]
