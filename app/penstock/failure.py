"""A handler's failure as a value: all that the desk, the policy, logs and letters need of it.

Made once, where the exception is caught, by a function that never raises; what the exception
itself would do when it is asked a second time, under a lock or on another thread, matters no
more.
"""

from __future__ import annotations

import operator
from asyncio import CancelledError
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.error_text import name_of, said, text_of, traceback_of
from penstock.errors import HandlerTimeout, KilledItsProcess, Poison, Undecodable


class Kind(StrEnum):
    """What sort of failure it is."""

    ERROR = "error"
    TIMEOUT = "timeout"
    #: The handler says that no further try can help.
    POISON = "poison"
    #: In place of calling the handler: the record killed its process, several times.
    KILLED = "killed"
    #: The value is not what the handler takes: its handler was never called.
    UNDECODABLE = "undecodable"
    #: Not an ``Exception``, or one that cannot be judged: the service has to end.
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a handler raised. ``name`` is its class, ``text`` what it said, both bounded."""

    kind: Kind
    name: str
    text: str
    #: As Python prints it; empty where nobody wants to read it.
    traceback: str = ""
    #: Which record of the batch it is about, if the handler named one.
    index: int | None = None
    #: Whether ``Retry(on=…)`` names it.
    retriable: bool = True

    @property
    def poison(self) -> bool:
        """Whether no further try can help."""
        return self.kind in (Kind.POISON, Kind.UNDECODABLE, Kind.KILLED)

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.text else self.name


_UNTOLD: Final = Failure(Kind.CRASH, "an exception", "of which nothing can be told")


def failure_of(
    error: BaseException, on: Collection[type[Exception]], *, traced: bool = True
) -> Failure:
    """Judge what a handler raised; never raises itself.

    ``on``: the exceptions worth another try. ``traced``: also what is expected, poison and time
    limits, is told with its traceback.
    """
    try:
        return _failure_of(error, on, traced=traced)
    except BaseException:  # no memory left, or no stack
        return _UNTOLD


def _failure_of(error: BaseException, on: Collection[type[Exception]], *, traced: bool) -> Failure:
    kind, name, text = _kind(error), name_of(error), text_of(error)
    retriable, index = True, None
    if issubclass(type(error), CancelledError):  # it has failed like any other
        kind, text = Kind.ERROR, "the handler was cancelled from within"
        retriable = any(issubclass(RuntimeError, each) for each in on)
    elif kind in (Kind.POISON, Kind.UNDECODABLE):
        index = _index(error)
    elif kind is not Kind.CRASH:
        try:
            retriable = _worth_another_try(error, on)
        except BaseException as raised:
            kind = Kind.CRASH
            text = f"{text} (Retry(on=…) could not be asked about it: {said(raised)})"
    traced = traced or kind in (Kind.ERROR, Kind.CRASH)
    return Failure(kind, name, text, traceback_of(error) if traced else "", index, retriable)


def _kind(error: BaseException) -> Kind:
    """By what it is, not by what it says it is (``__class__``)."""
    actual = type(error)
    if issubclass(actual, Undecodable):
        return Kind.UNDECODABLE
    if issubclass(actual, KilledItsProcess):
        return Kind.KILLED
    if issubclass(actual, Poison):
        return Kind.POISON
    if issubclass(actual, HandlerTimeout):
        return Kind.TIMEOUT
    return Kind.ERROR if issubclass(actual, Exception) else Kind.CRASH


def _index(error: BaseException) -> int | None:
    try:
        return operator.index(error.index)  # type: ignore[attr-defined] # a Poison has one
    except BaseException:  # whatever was given, it names no record
        return None


def _worth_another_try(error: BaseException, on: Collection[type[Exception]]) -> bool:
    """As ``except`` would see it, or as their metaclass says.

    Raises:
        BaseException: the metaclass did.
    """
    actual = type(error)
    if any(type.__subclasscheck__(each, actual) for each in on):
        return True
    return isinstance(error, tuple(on))
