"""Exceptions that do what exceptions should not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from penstock.errors import HandlerTimeout, Poison, Undecodable


def _refuse(*_: object) -> NoReturn:
    raise RuntimeError("not for you")


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


class Mute(Exception):
    __str__ = __repr__ = _refuse


class Exiting(Exception):
    __str__ = __repr__ = _exit


class NoText(Exception):
    def __str__(self) -> Any:
        return 7  # noqa: PLE0307 (on purpose)


class _Text(str):
    __slots__ = ()
    __len__ = __getitem__ = encode = __str__ = __format__ = _refuse  # type: ignore[assignment]


class OddText(Exception):
    def __str__(self) -> Any:
        return _Text("odd")


class Masked(Exception):
    @property  # type: ignore[misc] # on purpose
    def __class__(self) -> Any:
        raise RuntimeError("not for you")


class Disguised(Exception):
    @property  # type: ignore[misc] # on purpose
    def __class__(self) -> Any:
        return SystemExit


class Closed(Exception):
    __setattr__ = __delattr__ = _refuse
    __traceback__ = __cause__ = __context__ = __notes__ = property(_refuse)


class _Nameless(type):
    __name__ = property(_refuse)
    __mro__ = property(_refuse)


class Nameless(Exception, metaclass=_Nameless):
    pass


class MutePoison(Poison):
    index = property(_refuse)
    __str__ = _refuse

    def __init__(self) -> None:
        Exception.__init__(self)


class MuteCrash(BaseException):
    __str__ = __repr__ = _exit


def _circle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _long_chain() -> Exception:
    error: Exception = ValueError("first")
    for number in range(5_000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    return error


def _deep_group() -> Exception:
    error: Exception = Mute()
    for _ in range(100):
        error = ExceptionGroup("deep", [error, Exiting()])
    return error


def _noted() -> Exception:
    error = ValueError("noted")
    error.__notes__ = [Mute(), "a\ud800", b"\xff"]  # type: ignore[list-item]
    return error


_SAME = ValueError("always the same")

#: A handler's failures: the policy decides. Each made anew, but for one.
FAILURES: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("not today"),
    "empty": ValueError,
    "same object": lambda: _SAME,
    "str raises": Mute,
    "str exits": Exiting,
    "str gives an int": NoText,
    "str gives a subclass": OddText,
    "lone surrogate": lambda: ValueError("\ud800 is no character"),
    "bytes of a surrogate": lambda: ValueError("\udcff" * 5_000),
    "megabytes": lambda: ValueError("x" * 3_000_000),
    "many lines": lambda: ValueError("\r\n\x00\x1b[31m\u2028" * 1_000),
    "class raises": Masked,
    "class lies": Disguised,
    "attributes raise": Closed,
    "name raises": Nameless,
    "circle of causes": _circle,
    "long chain": _long_chain,
    "group": lambda: ExceptionGroup("g", [ValueError("one"), Mute()]),
    "deep group": _deep_group,
    "odd notes": _noted,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "MemoryError": MemoryError,
    "cancelled": asyncio.CancelledError,
    "timeout": lambda: HandlerTimeout("too slow"),
    "poison": lambda: Poison("never"),
    "poison that is mute": MutePoison,
    "poison, index is text": lambda: Poison("never", index="1"),  # type: ignore[arg-type]
    "poison, index is a float": lambda: Poison("never", index=1.0),  # type: ignore[arg-type]
    "poison, index is mute": lambda: Poison("never", index=Mute()),  # type: ignore[arg-type]
    "poison, index is huge": lambda: Poison("never", index=10**40),
    "poison, index is negative": lambda: Poison("never", index=-1),
    "undecodable": lambda: Undecodable("not an order"),
}

#: What no policy is asked about: the service ends.
CRASHES: dict[str, Callable[[], BaseException]] = {
    "BaseException": lambda: BaseException("why"),
    "SystemExit": lambda: SystemExit(0),
    "SystemExit with odd text": lambda: SystemExit("\ud800"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "group of crashes": lambda: BaseExceptionGroup("g", [SystemExit(3), ValueError()]),
    "mute crash": MuteCrash,
}
