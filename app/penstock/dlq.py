"""``penstock dlq``: look at dead letters, send them back, put them aside for good."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from penstock import letter_filter
from penstock.letter_filter import Filter, Stored
from penstock.terminal import literal, say

if TYPE_CHECKING:
    from penstock.errors import NotSent
    from penstock.kafka.letter_box import LetterBox, Send
    from penstock.kafka.producer import Producer

F = TypeVar("F", bound=Callable[..., Any])

GROUP: Final = "penstock.dlq"

_INTERRUPTED: Final = 130
_CONNECT: Final = 10.0  # seconds
_CONFIRM: Final = 30.0  # seconds that a batch of a hundred letters may take
_SOON: Final = 1.0  # seconds until a terminal is shown progress
_EACH: Final = (0.2, 10.0)  # seconds between two words of it: on a terminal, elsewhere


@click.group(
    epilog="\n\n".join(
        (
            literal(
                "Examples:\n"
                "  penstock dlq list orders.dead --by error         what went wrong, how often\n"
                "  penstock dlq list orders.dead --error OutOfStock --since 2h\n"
                "  penstock dlq show orders.dead 0:1042             one letter, with everything\n"
                "  penstock dlq replay orders.dead --error OutOfStock --dry-run\n"
                "  penstock dlq drop orders.dead --at 0:1042        do not look at it again"
            ),
            (
                "Nothing is ever deleted: letters that were replayed or dropped are marked as "
                "dealt with, in the committed offsets of a consumer group "
                f"({GROUP}, or --group). They go when the topic's retention takes them."
            ),
            (
                "The cluster and how to talk to it are the PENSTOCK_* settings of the environment, "
                "as for `penstock run`."
            ),
            (
                "Exit codes: 0 done, also when there was nothing to do; 1 the cluster refused; "
                "64 bad command line; 78 bad settings; 130 interrupted."
            ),
        )
    )
)
def dlq() -> None:
    """Look at dead letters, send them back, or mark them as dealt with."""


# -- options that several have ---------------------------------------------------------


def _cluster(command: F) -> F:
    servers = click.option(
        "--bootstrap-servers",
        metavar="HOST:PORT,…",
        help="The cluster  [default: PENSTOCK_BOOTSTRAP_SERVERS]",
    )
    group = click.option(
        "--group", default=GROUP, show_default=True, help="Consumer group that keeps the marks."
    )
    return servers(group(command))


class _Of(click.ParamType):  # type: ignore[type-arg] # not generic before click 8.3
    """A value that one of the filter's own functions reads."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_POSITION: Final = _Of("PARTITION:OFFSET", letter_filter.position)
_TIME: Final = _Of("TIME", lambda text: letter_filter.moment(text, time.time()))
_NUMBER: Final = click.IntRange(min=0)


def _filters(command: F) -> F:
    options: tuple[Callable[[F], F], ...] = (
        click.option("--topic", "origin", metavar="NAME", help="From this topic."),
        click.option("--partition", type=_NUMBER, help="From this partition of it."),
        click.option(
            "--at",
            "--offset",
            "positions",
            type=_POSITION,
            metavar="PARTITION:OFFSET",
            multiple=True,
            help="Lies here in the dead-letter topic; may be repeated.",
        ),
        click.option("--error", metavar="CLASS", help="Died of this exception."),
        click.option("--reason", metavar="TEXT", help="Its reason contains this."),
        click.option("--key", metavar="TEXT", help="Has this key (0x… if it is not text)."),
        click.option(
            "--since", type=_TIME, help="Put aside since: 2026-01-31T07:00 (UTC), or 2h ago."
        ),
        click.option("--until", type=_TIME, help="Put aside before."),
        click.option("--limit", type=click.IntRange(min=1), help="The first so many."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _acting(command: F) -> F:
    dry = click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
    yes = click.option("--yes", is_flag=True, help="Do not ask.")
    return dry(yes(command))


def _filter(origin: str | None, positions: Sequence[tuple[int, int]], **given: Any) -> Filter:
    return Filter(topic=origin, positions=frozenset(positions), **given)


# -- commands --------------------------------------------------------------------------


@dlq.command(name="list", epilog="A letter's place, AT, is what show, replay and drop take.")
@click.argument("topic")
@_filters
@click.option("--all", "settled", is_flag=True, help="Also those that are dealt with.")
@click.option("--by", type=click.Choice(["error", "topic", "reason"]), help="Count them by this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_cluster
def list_(
    topic: str,
    *,
    settled: bool,
    by: str | None,
    as_json: bool,
    limit: int | None,
    bootstrap_servers: str | None,
    group: str,
    **given: Any,
) -> None:
    """List the open letters of a dead-letter topic, each with where it came from and why.

    Example: penstock dlq list orders.dead --error OutOfStock --since 2h
    """
    from penstock import letter_text  # noqa: PLC0415 (not for the other commands)

    with _box(bootstrap_servers, topic, group) as box:
        found = _select(box, _filter(**given), limit, settled=settled)
        if by is not None:
            _count(found, by, as_json=as_json)
        elif as_json:
            for stored in found:
                say(json.dumps(letter_text.as_json(stored)))
        else:
            rows = list(found)
            if rows:
                say(letter_text.table(rows, states=settled))
            say(f"{_letters(len(rows))}{'' if settled else ', open'}", err=True)


def _count(found: Iterator[Stored], by: str, *, as_json: bool) -> None:
    from penstock import letter_text, render  # noqa: PLC0415 (as in list)

    counts: Counter[str] = Counter()
    times: dict[str, list[float]] = {}
    for stored in found:
        name = letter_text.trait(stored, by)
        counts[name] += 1
        first, last = times.get(name, [stored.since, stored.since])
        times[name] = [min(first, stored.since), max(last, stored.since)]
    rows = []
    for name, count in counts.most_common():
        since, until = map(letter_text.when, times[name])
        rows.append((count, since, until, name))
        if as_json:
            say(json.dumps({by: name, "count": count, "first": since, "last": until}))
    if not as_json:
        say(render.table(("COUNT", "FIRST", "LAST", by.upper()), rows))


@dlq.command()
@click.argument("topic")
@click.argument("position", type=_POSITION, metavar="PARTITION:OFFSET")
@_cluster
def show(
    topic: str, position: tuple[int, int], *, bootstrap_servers: str | None, group: str
) -> int:
    """Show everything about one letter: origin, headers, value and traceback.

    Example: penstock dlq show orders.dead 0:1042
    """
    from penstock import letter_text  # noqa: PLC0415 (not for the other commands)

    number, offset = position
    with _box(bootstrap_servers, topic, group) as box:
        if number in box.partitions:
            for stored in box.letters(number, settled=True, start=offset, end=offset + 1):
                say(letter_text.show(stored, time.time()))
                return 0
        say(
            f"penstock: there is no record at {number}:{offset} of {topic}: it never was, or "
            "retention has taken it",
            err=True,
        )
        return 1


@dlq.command(
    epilog=(
        "A letter is marked once its topic has confirmed it, a hundred at a time: when this is "
        "killed, up to a hundred may be sent again by the next replay. Letters go to the "
        "partition of their key, behind what is there: a later record of the same key that was "
        "handled meanwhile is not waited for."
    )
)
@click.argument("topic")
@_filters
@click.option("--to", metavar="TOPIC", help="Send them there, not where they came from.")
@_acting
@_cluster
def replay(
    topic: str,
    *,
    to: str | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    bootstrap_servers: str | None,
    group: str,
    **given: Any,
) -> int:
    """Send open letters back to the topics they came from, and mark them as dealt with.

    Key, value and headers are the original ones, without Penstock's. Records that are not
    letters are left alone.

    Example: penstock dlq replay orders.dead --error OutOfStock --dry-run
    """
    if to == topic:
        raise click.UsageError("--to must be another topic")
    _need_yes(yes=yes or dry_run)
    with _box(bootstrap_servers, topic, group) as box:
        chosen: defaultdict[int, set[int]] = defaultdict(set)
        goals: Counter[str] = Counter()
        foreign = 0
        for stored in _select(box, _filter(**given), None):
            if stored.origin is None:
                foreign += 1
                continue
            chosen[stored.at[0]].add(stored.at[1])
            goals[to or stored.origin.topic] += 1
            if goals.total() == limit:
                break
        if foreign:
            say(f"{foreign:,} that are not letters are left alone", err=True)
        where = ", ".join(f"{name} ({count:,})" for name, count in goals.most_common())
        if not _agreed(goals.total(), f"replayed to {where}", "replay", dry_run=dry_run, yes=yes):
            return 0
        with _sender(to) as send:
            return _settle(box, chosen, send, "replayed")


@dlq.command()
@click.argument("topic")
@_filters
@click.option("--all", "everything", is_flag=True, help="Every open one, without a filter.")
@_acting
@_cluster
def drop(
    topic: str,
    *,
    everything: bool,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    bootstrap_servers: str | None,
    group: str,
    **given: Any,
) -> int:
    """Mark open letters as dealt with, without sending them anywhere.

    They stay in the topic until its retention takes them: `list --all` still shows them.

    Example: penstock dlq drop orders.dead --at 0:1042
    """
    wanted = _filter(**given)
    if not wanted and not everything:
        raise click.UsageError("say which: a filter, or --all for every open letter")
    if wanted and everything:
        raise click.UsageError("either a filter, or --all")
    _need_yes(yes=yes or dry_run)
    with _box(bootstrap_servers, topic, group) as box:
        chosen: defaultdict[int, set[int]] = defaultdict(set)
        for stored in _select(box, wanted, limit):
            chosen[stored.at[0]].add(stored.at[1])
        total = sum(map(len, chosen.values()))
        if not _agreed(total, "dropped", "drop", dry_run=dry_run, yes=yes):
            return 0
        return _settle(box, chosen, None, "dropped")


# -- how -------------------------------------------------------------------------------


@contextmanager
def _box(servers: str | None, topic: str, group: str) -> Iterator[LetterBox]:
    import logging  # noqa: PLC0415 (as below)

    from penstock import settings  # noqa: PLC0415 (`penstock health` needs none of these)
    from penstock.kafka.letter_box import LetterBox  # noqa: PLC0415

    # The client's complaints about connections come back as our own errors.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    logging.getLogger("kafka").propagate = False
    if servers is not None:
        os.environ[settings.env_name("bootstrap_servers")] = servers  # outranks what was there
    box = LetterBox(settings.load({}), topic, group)
    try:
        for warning in box.warnings:
            say(f"penstock: {warning}", err=True)
        yield box
    finally:
        box.close()


def _select(
    box: LetterBox, wanted: Filter, limit: int | None, *, settled: bool = False
) -> Iterator[Stored]:
    """Letters that are meant, by partition and offset."""
    left = limit
    for number in box.partitions:
        here = [offset for partition, offset in wanted.positions if partition == number]
        if wanted.positions and not here:
            continue
        start, end = (min(here), max(here) + 1) if here else (0, None)
        for stored in box.letters(number, settled=settled, start=start, end=end):
            if wanted(stored):
                yield stored
                if left is not None:
                    left -= 1
                    if not left:
                        return


def _need_yes(*, yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here (no terminal): say --yes, or --dry-run")


def _agreed(total: int, done: str, verb: str, *, dry_run: bool, yes: bool) -> bool:
    if not total:
        say("no open letters to " + verb)
        return False
    if dry_run:
        say(f"dry run: {_letters(total)} would be {done}; nothing was sent or marked")
        return False
    return yes or click.confirm(f"{_letters(total)} will be {done}. Go on?", err=True)


@contextmanager
def _sender(to: str | None) -> Iterator[Send]:
    from penstock import settings  # noqa: PLC0415 (as in _box)
    from penstock.errors import KafkaFailure  # noqa: PLC0415
    from penstock.kafka.producer import Outgoing, Producer  # noqa: PLC0415
    from penstock.letters import for_replay  # noqa: PLC0415

    def send(letters: Sequence[Stored]) -> Sequence[NotSent | None]:
        records = []
        for record, origin, _ in letters:
            assert origin is not None
            goal = to or origin.topic
            records.append(Outgoing(goal, record.key, record.value, for_replay(record.headers)))
        return producer.send(records, _CONFIRM)

    producer: Producer = Producer(settings.load({}))
    try:
        producer.connect(_CONNECT)
        yield send
    except TimeoutError as error:
        raise KafkaFailure(str(error)) from error
    finally:
        producer.close()


def _settle(box: LetterBox, chosen: dict[int, set[int]], send: Send | None, done: str) -> int:
    progress = _Progress(sum(map(len, chosen.values())), done)
    with _halting() as halted:
        try:
            for number in sorted(chosen):
                box.settle(number, chosen[number], send, progress, halted)
        finally:
            progress.end()
        box.renew()
    gone = progress.total - progress.done
    if halted():
        say(f"interrupted: {_letters(gone)} stay open", err=True)
        return _INTERRUPTED
    if gone:  # retention has taken them between our two looks
        say(f"{_letters(gone)} are not in the topic any more", err=True)
    return 0


class _Progress:
    """Counts what is done; tells, on stderr, when it takes long."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.done = 0
        self._what = what
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._every = _EACH[0] if self._terminal else _EACH[1]
        self._next = self._started + (_SOON if self._terminal else _EACH[1])
        self._shown = False

    def __call__(self, more: int) -> None:
        self.done += more
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            rate = self.done / (now - self._started)
            text = f"{self.done:,} of {_letters(self.total)} {self._what}, {rate:,.0f}/s"
            if self._terminal:
                click.echo(f"\r{text}\x1b[K", err=True, nl=False)
                self._shown = True
            else:
                say(text, err=True)

    def end(self) -> None:
        if self._shown:
            click.echo(err=True)
        say(f"{_letters(self.done)} {self._what}")


@contextmanager
def _halting() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and TERM end the work after the batch under way; a second one at once."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _letters(count: int) -> str:
    return "1 letter" if count == 1 else f"{count:,} letters"
