"""Handlers that do nothing but count, and note when the first and the last record came."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from penstock import App, Record

_TOTAL = int(os.environ.get("BENCH_TOTAL", "0"))
_RESULT = Path(os.environ.get("BENCH_RESULT", "bench-result"))

H = TypeVar("H", bound=Callable[..., Any])

count = 0
first = 0.0
cpu = 0.0

_CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "1"))
_WORK = float(os.environ.get("BENCH_WORK", "0"))


def _counted(number: int) -> None:
    global count, first, cpu  # noqa: PLW0603 (one counter in one process)
    if not count:
        first, cpu = time.monotonic(), time.process_time()
    count += number
    if count >= _TOTAL:
        took, used = time.monotonic() - first, time.process_time() - cpu
        temporary = _RESULT.with_suffix(".tmp")
        temporary.write_text(f"{took} {used}")
        temporary.rename(_RESULT)


def _app(order_by: str = "partition") -> tuple[App, Callable[[H], H]]:
    app = App()
    concurrency = _CONCURRENCY if order_by != "partition" else 1
    return app, app.subscribe("bench", group="bench", order_by=order_by, concurrency=concurrency)


class Model(BaseModel):
    """What the JSON records hold."""

    id: int
    item: str
    price: float


@dataclass
class Plain:
    """The same as a dataclass."""

    id: int
    item: str
    price: float


class Typed(TypedDict):
    """The same as a TypedDict."""

    id: int
    item: str
    price: float


records, subscribe = _app()


@subscribe
def one(_record: Record) -> None:
    _counted(1)


batches, subscribe = _app()


@subscribe
def many(batch: list[Record]) -> None:
    _counted(len(batch))


models, subscribe = _app()


@subscribe
def model(_value: Model) -> None:
    _counted(1)


dataclasses, subscribe = _app()


@subscribe
def plain(_value: Plain) -> None:
    _counted(1)


typeddicts, subscribe = _app()


@subscribe
def typed(_value: Typed) -> None:
    _counted(1)


model_batches, subscribe = _app()


@subscribe
def many_models(batch: list[Model]) -> None:
    _counted(len(batch))


async_records, subscribe = _app()


@subscribe
async def one_async(_record: Record) -> None:
    _counted(1)


async_batches, subscribe = _app()


@subscribe
async def many_async(batch: list[Record]) -> None:
    _counted(len(batch))


by_key, subscribe = _app("key")


@subscribe
def one_by_key(_record: Record) -> None:
    _counted(1)


async_by_key, subscribe = _app("key")


@subscribe
async def one_async_by_key(_record: Record) -> None:
    _counted(1)


unordered, subscribe = _app("none")


@subscribe
def one_unordered(_record: Record) -> None:
    _counted(1)


sleeping, subscribe = _app("key")


@subscribe
def sleep(_record: Record) -> None:
    time.sleep(_WORK)
    _counted(1)


async_sleeping, subscribe = _app("key")


@subscribe
async def sleep_async(_record: Record) -> None:
    await asyncio.sleep(_WORK)
    _counted(1)


computing, subscribe = _app()


@subscribe
def compute(_record: Record) -> None:
    """CPU-bound: about a tenth of a millisecond of bytecode."""
    total = 0
    for number in range(2_000):
        total += number * number
    _note(total)


def _note(_total: int) -> None:
    """Count over all worker processes: each appends a byte to one file."""
    global count  # noqa: PLW0603 (as above)
    count += 1
    if count % 100 == 0:
        with _RESULT.with_suffix(".count").open("ab") as file:
            file.write(b"." * 1)
