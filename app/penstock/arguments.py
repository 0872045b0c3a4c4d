"""What an application may write in its code, checked when it is written. Pure.

Annotations are not enforced by anybody, and a value of the wrong type would be found out by a
worker, late, with a traceback. So each argument of ``subscribe``, ``Retry``, ``Breaker`` and
``Batch`` passes one of these functions, and what is wrong is one sentence of the same shape::

    subscribe(concurrency='64'): a whole number from 1 to 1024

Each takes the ``place`` (``"Retry"``), the argument's ``name`` and its ``value``.
"""

from __future__ import annotations

import math
import re
from typing import Final, NoReturn, TypeGuard, TypeVar

from penstock.errors import ConfigError

T = TypeVar("T")

#: Handlers at work in one worker at most: so many places the board has (see its module).
MOST_CONCURRENT: Final = 1024

#: Kafka's own rule (``org.apache.kafka.common.internals.Topic``).
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+(?=>)")
_SHOWN: Final = 60  # characters of a value


def refuse(place: str, name: str, value: object, wanted: str) -> NoReturn:
    """Say what was given, where, and what is wanted instead.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"{place}({name}={shown(value)}): {wanted}")


def shown(value: object) -> str:
    """A value as the code has it, for a sentence: one line, not too long, the same each time."""
    try:
        text = _ADDRESS.sub("", " ".join(repr(value).split()))
    except Exception:  # the value is the user's, and so is its __repr__
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def whole(
    place: str, name: str, value: object, *, least: int = 1, most: int | None = None, hint: str = ""
) -> int:
    """A whole number from ``least`` to ``most``; ``True`` is none."""
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value >= least
        and (most is None or value <= most)
    ):
        return value
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    refuse(place, name, value, f"a whole number {bounds}{hint}")


def seconds(place: str, name: str, value: object, *, zero: bool = False, hint: str = "") -> float:
    """Seconds, above 0 (or 0 as well), and not for ever."""
    if number(value) and (value > 0 or (zero and value == 0)):
        return value
    least = "0 or more" if zero else "above 0"
    refuse(place, name, value, f"seconds, {least}{hint}")


def share(place: str, name: str, value: object) -> float:
    """A part of a whole, above 0 and at most 1."""
    if number(value) and 0 < value <= 1:
        return value
    refuse(place, name, value, "a number above 0 and at most 1")


def number(value: object) -> TypeGuard[float]:
    """Whether it is a number, and a finite one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def instance(place: str, name: str, value: object, kind: type[T], example: str) -> T:
    """An object of Penstock's own; ``example`` shows how it is written."""
    if isinstance(value, kind):
        return value
    refuse(place, name, value, f"write {example}")


def text(place: str, name: str, value: object, what: str) -> str:
    """Text that says something and can be sent."""
    if isinstance(value, str) and value.strip() and _encodes(value):
        return value
    refuse(place, name, value, what)


def topic_problem(name: str) -> str | None:
    """Why no broker would have a topic of this name; ``None`` when one might."""
    if _TOPIC.fullmatch(name) and name not in (".", ".."):
        return None
    return (
        f"{shown(name)} is no topic's name: 1 to 249 letters, digits, dots, dashes and underscores"
    )


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
