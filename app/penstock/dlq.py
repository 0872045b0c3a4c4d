"""``penstock dlq``: look at dead letters, send them back, put them aside for good."""

from __future__ import annotations

import json
import os
import shutil
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
from penstock.letter_filter import Filter, Span, Stored
from penstock.terminal import Progress, literal, say

if TYPE_CHECKING:
    from penstock.errors import NotSent
    from penstock.kafka.letter_box import LetterBox, Send
    from penstock.kafka.producer import Producer

F = TypeVar("F", bound=Callable[..., Any])
#: Offsets by partition.
Chosen = defaultdict[int, set[int]]

GROUP: Final = "penstock.dlq"

_INTERRUPTED: Final = 130
_CONNECT: Final = 10.0  # seconds
_CONFIRM: Final = 30.0  # seconds that a batch of a hundred letters may take
#: Rounds that a letter goes before somebody has to say that it may go another one.
_ROUNDS: Final = 3


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
                "Exit codes: 0 done, also when there was nothing to do; 1 the cluster refused, "
                "there is no such letter, or some went too many rounds; 64 bad command line; "
                "78 bad settings; 130 interrupted."
            ),
        )
    )
)
def dlq() -> None:
    """Look at dead letters, send them back, or mark them as dealt with."""


# -- options that several have ---------------------------------------------------------


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


def _name(text: str) -> str:
    if not text:
        raise ValueError("it must not be empty")
    return text


def _cluster(command: F) -> F:
    servers = click.option(
        "--bootstrap-servers",
        metavar="HOST:PORT,…",
        help="The cluster  [default: PENSTOCK_BOOTSTRAP_SERVERS]",
    )
    group = click.option(
        "--group",
        type=_Of("NAME", _name),
        metavar="NAME",
        default=GROUP,
        show_default=True,
        help="Consumer group that keeps the marks.",
    )
    return servers(group(command))


_POSITION: Final = _Of("PARTITION:OFFSET", letter_filter.position)
_SPAN: Final = _Of("PARTITION:OFFSET[-LAST]", letter_filter.span)
_TIME: Final = _Of("TIME", lambda text: letter_filter.moment(text, time.time()))
_NUMBER: Final = click.IntRange(min=0)


def _filters(command: F) -> F:
    options: tuple[Callable[[F], F], ...] = (
        click.option("--topic", "origin", metavar="NAME", help="From this topic."),
        click.option("--partition", type=_NUMBER, help="From this partition of it."),
        click.option(
            "--at",
            "spans",
            type=_SPAN,
            metavar="PARTITION:OFFSET[-LAST]",
            multiple=True,
            help="Lies here in the dead-letter topic; may be repeated.",
        ),
        click.option(
            "--from-group", "consumer", metavar="NAME", help="Put aside by this consumer group."
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


def _filter(
    origin: str | None, spans: Sequence[Span], consumer: str | None, **given: Any
) -> Filter:
    return Filter(topic=origin, spans=tuple(spans), group=consumer, **given)


# -- commands --------------------------------------------------------------------------


@dlq.command(
    name="list",
    short_help="List the open letters, or count them.",
    epilog="A letter's place, AT, is what show, replay and drop take.",
)
@click.argument("topic")
@_filters
@click.option("--all", "settled", is_flag=True, help="Also those that are dealt with.")
@click.option(
    "--by", type=click.Choice(["error", "reason", "topic", "group"]), help="Count them by this."
)
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
                if not say(json.dumps(letter_text.as_json(stored)), result=True):
                    break
        else:
            rows = [letter_text.row(stored, states=settled) for stored in found]
            if rows:
                width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
                say(letter_text.table(rows, states=settled, width=width), result=True)
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
            line = {by: name, "count": count, "first": since, "last": until}
            say(json.dumps(line), result=True)
    if rows and not as_json:
        say(render.table(("COUNT", "FIRST", "LAST", by.upper()), rows), result=True)


@dlq.command(short_help="Show everything about one letter.")
@click.argument("topic")
@click.argument("position", type=_POSITION, metavar="PARTITION:OFFSET")
@click.option("--raw", is_flag=True, help="Its value alone, as it is, to write into a file.")
@_cluster
def show(
    topic: str,
    position: tuple[int, int],
    *,
    raw: bool,
    bootstrap_servers: str | None,
    group: str,
) -> int:
    """Show everything about one letter: origin, headers, value and traceback.

    Of a large value the beginning; what is not text as hex.

    Example: penstock dlq show orders.dead 0:1042
    """
    from penstock import letter_text  # noqa: PLC0415 (not for the other commands)

    number, offset = position
    with _box(bootstrap_servers, topic, group) as box:
        if number in box.partitions:
            for stored in box.letters(number, settled=True, start=offset, end=offset + 1):
                if raw:
                    say(stored.record.value or b"", nl=False, result=True)
                else:
                    say(letter_text.show(stored, time.time()), result=True)
                return 0
        say(
            f"penstock: there is no record at {number}:{offset} of {topic}: it never was, or "
            "retention has taken it",
            err=True,
        )
        return 1


@dlq.command(
    short_help="Send open letters back to where they came from.",
    epilog=(
        "A letter is marked once its topic has confirmed it, a hundred at a time: when this is "
        "killed, up to a hundred may be sent again by the next replay. Ctrl-C ends it between "
        "two batches. Letters go to the partition that they came from (with --to, to that of "
        "their key), behind what is there by now. Every consumer group of the topic gets them, "
        "not only the one that failed. One that was replayed --max-rounds times and failed again "
        "each time is left alone and stays open, and the exit code is 1: mend what fails first."
    ),
)
@click.argument("topic")
@_filters
@click.option("--to", metavar="TOPIC", help="Send them there, not where they came from.")
@click.option(
    "--max-rounds",
    type=_NUMBER,
    default=_ROUNDS,
    show_default=True,
    help="Leave those alone that were replayed so often before.",
)
@_acting
@_cluster
def replay(
    topic: str,
    *,
    to: str | None,
    max_rounds: int,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    bootstrap_servers: str | None,
    group: str,
    **given: Any,
) -> int:
    """Send open letters back to the topics they came from, and mark them as dealt with.

    Key, value and headers are the original ones, without Penstock's but for one that counts the
    rounds. Records that are not letters are left alone.

    Example: penstock dlq replay orders.dead --error OutOfStock --dry-run
    """
    if to == topic:
        raise click.UsageError("--to must be another topic")
    _need_yes(yes=yes or dry_run)
    with _box(bootstrap_servers, topic, group) as box:
        plan = _Replay(to, max_rounds)
        chosen = _choose(box, _filter(**given), limit, plan)
        where = ", ".join(f"{name} ({count:,})" for name, count in plan.goals.most_common())
        plan.tell()
        if not _agreed(box, chosen, f"replayed to {where}", "replay", dry_run=dry_run, yes=yes):
            return int(bool(plan.tired))
        with _sender(to) as send:
            return _settle(box, chosen, send, "replayed") or int(bool(plan.tired))


@dlq.command(short_help="Mark open letters as dealt with, without sending them.")
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
        chosen = _choose(box, wanted, limit)
        if not _agreed(box, chosen, "dropped", "drop", dry_run=dry_run, yes=yes):
            return 0
        return _settle(box, chosen, None, "dropped")


# -- how -------------------------------------------------------------------------------


@contextmanager
def _box(servers: str | None, topic: str, group: str) -> Iterator[LetterBox]:
    import logging  # noqa: PLC0415 (as below)

    from penstock import settings  # noqa: PLC0415 (`penstock health` needs none of these)
    from penstock.kafka import credentials  # noqa: PLC0415
    from penstock.kafka.letter_box import LetterBox  # noqa: PLC0415

    # The client's complaints about connections come back as our own errors.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    logging.getLogger("kafka").propagate = False
    if servers is not None:
        os.environ[settings.env_name("bootstrap_servers")] = servers  # outranks what was there
    found = settings.load({})
    credentials.check(found)
    box = LetterBox(found, topic, group)
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
    progress = Progress(box.count(settled=settled), "records looked at")
    left = limit
    try:
        for number in box.partitions:
            here = [span for span in wanted.spans if span.partition == number]
            if wanted.spans and not here:
                continue
            start = min((span.first for span in here), default=0)
            end = max((span.last + 1 for span in here), default=None)
            for stored in box.letters(number, settled=settled, start=start, end=end):
                progress(1)
                if wanted(stored):
                    yield stored
                    if left is not None:
                        left -= 1
                        if not left:
                            return
    finally:
        progress.clear()


class _Replay:
    """Where letters go, and which of them are not sent."""

    def __init__(self, to: str | None, max_rounds: int) -> None:
        self._to = to
        self._max_rounds = max_rounds
        #: How many go where.
        self.goals: Counter[str] = Counter()
        #: How many are no letters, and how many have gone too many rounds.
        self.foreign = 0
        self.tired = 0
        self._most = 0

    def takes(self, stored: Stored) -> bool:
        """Whether this one is sent; counted either way."""
        origin = stored.origin
        if origin is None:
            self.foreign += 1
        elif origin.rounds >= self._max_rounds:
            self.tired += 1
            self._most = max(self._most, origin.rounds)
        else:
            self.goals[self._to or origin.topic] += 1
            return True
        return False

    def tell(self) -> None:
        """Say what is left alone."""
        if self.foreign:
            say(f"{self.foreign:,} that are not letters are left alone", err=True)
        if self.tired:
            say(
                f"{_letters(self.tired)} left alone: replayed {self._max_rounds} times or more "
                "before, and put aside again each time. Mend what fails, then say --max-rounds "
                f"{self._most + 1}; or drop them",
                err=True,
            )


def _choose(
    box: LetterBox, wanted: Filter, limit: int | None, replay: _Replay | None = None
) -> Chosen:
    """The open letters to deal with; those that are to be replayed, as far as they are."""
    chosen: Chosen = defaultdict(set)
    total = 0
    for stored in _unless_interrupted(_select(box, wanted, None)):
        if replay is not None and not replay.takes(stored):
            continue
        number, offset = stored.at
        chosen[number].add(offset)
        total += 1
        if total == limit:
            break
    else:
        for span in wanted.spans:
            if not any(span.holds((n, offset)) for n in chosen for offset in chosen[n]):
                say(f"{span}: no open letter there that is meant", err=True)
    return chosen


def _unless_interrupted(found: Iterator[Stored]) -> Iterator[Stored]:
    try:
        yield from found
    except KeyboardInterrupt:
        say("interrupted: nothing was sent or marked", err=True)
        raise


def _need_yes(*, yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here (no terminal): say --yes, or --dry-run")


def _agreed(
    box: LetterBox, chosen: Chosen, done: str, verb: str, *, dry_run: bool, yes: bool
) -> bool:
    total = _count_of(chosen)
    if not total:
        say("no open letters to " + verb)
        if not dry_run:
            box.renew()
        return False
    if dry_run:
        say(f"dry run: {_letters(total)} would be {done}; nothing was sent or marked")
        return False
    if yes or click.confirm(f"{_letters(total)} will be {done}. Go on?", err=True):
        return True
    say("nothing was sent or marked", err=True)
    return False


@contextmanager
def _sender(to: str | None) -> Iterator[Send]:
    from penstock import settings  # noqa: PLC0415 (as in _box)
    from penstock.errors import KafkaFailure  # noqa: PLC0415
    from penstock.kafka.producer import Outgoing, Producer  # noqa: PLC0415
    from penstock.letters import replayed  # noqa: PLC0415

    def send(letters: Sequence[Stored]) -> Sequence[NotSent | None]:
        records = []
        for record, origin, _ in letters:
            assert origin is not None
            # Back to the partition it came from, however its producer chose that.
            goal, number = (to, None) if to else (origin.topic, origin.partition)
            headers = replayed(record.headers)
            records.append(Outgoing(goal, record.key, record.value, headers, number))
        return producer.send(records, _CONFIRM)

    producer: Producer = Producer(settings.load({}))
    try:
        producer.connect(_CONNECT)
        yield send
    except TimeoutError as error:
        raise KafkaFailure(str(error)) from error
    finally:
        producer.close()


def _settle(box: LetterBox, chosen: Chosen, send: Send | None, done: str) -> int:
    progress = Progress(_count_of(chosen), f"letters {done}")
    try:
        with _halting() as halted:
            for number in sorted(chosen):
                if not halted():
                    box.settle(number, chosen[number], send, progress, halted)
            box.renew()
    except KeyboardInterrupt:
        _sum_up(progress, done, stay_open=True)
        say("interrupted within a batch: up to 100 of those may have been sent", err=True)
        raise
    except BaseException:  # told what is done, whatever ended it; it goes on as it was
        _sum_up(progress, done, stay_open=True)
        raise
    _sum_up(progress, done, stay_open=halted())
    return _INTERRUPTED if halted() and progress.done < progress.total else 0


def _sum_up(progress: Progress, done: str, *, stay_open: bool) -> None:
    progress.clear()
    say(f"{_letters(progress.done)} {done}")
    left = progress.total - progress.done
    if left and stay_open:
        say(f"still open: {_letters(left)}; the same command goes on with them", err=True)
    elif left:  # retention has taken them between our two looks
        say(f"no longer in the topic: {_letters(left)}", err=True)


@contextmanager
def _halting() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and TERM end the work after the batch under way; a second one at once."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        # Not through the buffer of sys.stderr, which may be what was interrupted.
        os.write(2, b"\nending after the batch under way; once more: at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _count_of(chosen: Chosen) -> int:
    return sum(map(len, chosen.values()))


def _letters(count: int) -> str:
    return "1 letter" if count == 1 else f"{count:,} letters"
