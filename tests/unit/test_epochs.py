from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from penstock.kafka.epochs import Epochs


class Read(NamedTuple):
    offset: int
    leader_epoch: int


def chunk(first: int, *epochs: int) -> list[Read]:
    return [Read(first + index, epoch) for index, epoch in enumerate(epochs)]


def test_an_epoch_is_that_of_the_record_before() -> None:
    epochs = Epochs(before=2)
    assert [epochs.before(offset) for offset in (0, 100)] == [2, 2]
    epochs.saw(chunk(100, 2, 2, 3, 3))
    epochs.saw(chunk(104, 3, 7))
    assert [epochs.before(offset) for offset in (100, 102, 103, 105, 106)] == [2, 2, 3, 3, 7]
    assert epochs.highest == 7


def test_nothing_is_known_at_first() -> None:
    epochs = Epochs()
    assert (epochs.before(5), epochs.highest) == (-1, -1)
    epochs.saw(chunk(5, -1, -1))
    assert (epochs.before(7), epochs.highest) == (-1, -1)
    epochs.saw(chunk(7, 0))
    assert (epochs.before(7), epochs.before(8), epochs.highest) == (-1, 0, 0)


def test_a_log_that_is_cut_off_has_other_epochs_from_there_on() -> None:
    epochs = Epochs(before=1)
    epochs.saw(chunk(10, 1, 1, 4, 5, 5))
    epochs.saw(chunk(12, 6, 6))
    assert [epochs.before(offset) for offset in (12, 13, 14, 99)] == [1, 6, 6, 6]
    assert epochs.highest == 6
    epochs.saw(chunk(3, 8))
    assert [epochs.before(offset) for offset in (3, 4, 14)] == [1, 8, 8]


def test_what_an_earlier_owner_told_of_counts() -> None:
    epochs = Epochs(before=1, highest=4)
    epochs.saw(chunk(10, 2))
    assert (epochs.before(11), epochs.highest) == (2, 4)


def test_they_do_not_grow_for_ever() -> None:
    epochs = Epochs(before=0)
    for number in range(1, 1_000):
        epochs.saw(chunk(number, number))
    assert len(epochs._starts) <= 100
    assert (epochs.before(1_000), epochs.before(500)) == (999, -1)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=40), st.data()
)
def test_it_says_what_a_look_at_every_record_would_say(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    log, offset, epoch = list[Read](), 0, 0
    for gap, later in steps:
        offset, epoch = offset + gap, epoch + later
        log.append(Read(offset, epoch))
    epochs = Epochs()
    rest = log
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        epochs.saw(rest[:size])
        rest = rest[size:]
    for asked in range(offset + 3):
        before = [r.leader_epoch for r in log if r.offset < asked]
        assert epochs.before(asked) == (before[-1] if before else -1)
    assert epochs.highest == epoch
