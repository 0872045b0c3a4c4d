from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.offset_map import ALWAYS, MAP_LIMIT, SPAN, decode, encode
from penstock.offsets import Tracker


def expected(admitted: list[int], finished: set[int]) -> int | None:
    """What a person would say: the smallest that is missing, or one past the last."""
    if not admitted:
        return None
    missing = [offset for offset in admitted if offset not in finished]
    if not missing:
        return admitted[-1] + 1
    before = [offset for offset in admitted if offset < missing[0]]
    # Of the gap between two admitted offsets nothing is known: one past the last finished.
    return before[-1] + 1 if before else admitted[0]


@given(st.data())
def test_the_position_is_where_everything_before_is_finished(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    cut = data.draw(st.integers(0, len(offsets)))
    tracker = Tracker()
    assert tracker.admit(offsets[:cut]) == offsets[:cut]
    admitted, finished = offsets[:cut], set[int]()
    waiting = list(admitted)
    last = -1
    while waiting or admitted != offsets:
        if admitted != offsets and (not waiting or data.draw(st.booleans())):
            more = offsets[len(admitted) : len(admitted) + data.draw(st.integers(1, 5))]
            assert tracker.admit(more) == more
            admitted, waiting = admitted + more, waiting + more
        else:
            offset = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            tracker.done(offset)
            finished.add(offset)
        assert tracker.position == expected(admitted, finished)
        assert tracker.outstanding == len(waiting)
        assert tracker.lowest == min(waiting, default=None)
        assert tracker.position is not None
        assert tracker.position >= last
        last = tracker.position
    assert tracker.position == offsets[-1] + 1


@given(
    st.sets(st.integers(0, 30), min_size=1, max_size=10).map(sorted),
    st.integers(0, 40),
    st.data(),
)
def test_what_is_not_outstanding_is_refused_and_changes_nothing(
    offsets: list[int], strange: int, data: st.DataObject
) -> None:
    tracker = Tracker()
    tracker.admit(offsets)
    done = data.draw(st.lists(st.sampled_from(offsets), unique=True))
    for offset in done:
        tracker.done(offset)
    before = tracker.position, tracker.outstanding, tracker.beyond, tracker.version
    for offset in {*done, strange} - (set(offsets) - set(done)):
        with pytest.raises(ValueError, match=f"offset {offset} is not outstanding"):
            tracker.done(offset)
    assert (tracker.position, tracker.outstanding, tracker.beyond, tracker.version) == before


@given(st.data())
def test_a_tracker_knows_what_is_finished_whatever_the_order(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=25)))
    known = data.draw(st.sets(st.sampled_from(offsets)))
    tracker = Tracker(known)
    finished, admitted, todo = set(known), list[int](), list[int]()
    while todo or admitted != offsets:
        if admitted != offsets and (not todo or data.draw(st.booleans())):
            more = offsets[len(admitted) : len(admitted) + data.draw(st.integers(1, 6))]
            assert tracker.admit(more) == [offset for offset in more if offset not in known]
            admitted += more
            todo += [offset for offset in more if offset not in known]
        else:
            offset = todo.pop(data.draw(st.integers(0, len(todo) - 1)))
            tracker.done(offset)
            finished.add(offset)
        missing = [offset for offset in admitted if offset not in finished]
        assert tracker.outstanding == len(missing)
        assert tracker.position is not None
        if missing:
            assert tracker.position <= missing[0]
            assert tracker.beyond == {offset for offset in finished if offset > missing[0]}
        # Nothing that is not finished is ever behind the position.
        assert all(offset >= tracker.position for offset in missing)
        assert {o for o in finished if o >= tracker.position} == tracker.beyond
    assert (tracker.position, tracker.beyond) == (offsets[-1] + 1, frozenset())


def test_a_tracker_refuses_what_is_not_outstanding() -> None:
    tracker = Tracker({4})
    assert tracker.admit([3, 4, 6]) == [3, 6]
    tracker.done(6)
    for offset in (4, 5, 6, 7):
        with pytest.raises(ValueError, match=f"offset {offset} is not outstanding"):
            tracker.done(offset)
    tracker.done(3)
    assert tracker.position == 7


@given(st.data())
def test_the_version_tells_every_change_of_what_is_to_be_committed(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 30), min_size=1, max_size=12)))
    known = data.draw(st.sets(st.sampled_from(offsets)))
    tracker = Tracker(known)
    seen: dict[int, tuple[int | None, frozenset[int]]] = {}
    todo = tracker.admit(offsets)
    for offset in data.draw(st.permutations(todo)):
        now = tracker.position, tracker.beyond
        assert seen.setdefault(tracker.version, now) == now
        tracker.done(offset)
    now = tracker.position, tracker.beyond
    assert seen.setdefault(tracker.version, now) == now


@pytest.mark.parametrize("gap", [1, 2, 5, 300, 2**30])
@pytest.mark.parametrize("known", [0, 1, 123, 5_000])
def test_whatever_finishes_of_what_there_was_room_for_fits(gap: int, known: int) -> None:
    """The promise of back-pressure: ``encode`` never refuses what ``room`` let through.

    The log is fed until there is no room, and all but the record at the watermark finishes in
    any order, which is when the text is longest; then the watermark moves, and so on.
    """
    random = Random(gap + known)
    offset, log = random.randrange(2**40), list[int]()
    for _ in range(2 * SPAN // min(gap, 20)):
        offset += random.randint(1, gap)
        log.append(offset)
    early = log[1 : ALWAYS if gap > 5 else SPAN // 6]
    tracker = Tracker(random.sample(early, min(known, len(early))))
    todo, fed, stops = list[int](), 0, 0
    while fed < len(log) and stops < 3:
        chunk = log[fed : fed + random.randint(1, 4_000)]
        count = tracker.room(chunk)
        assert 0 <= count <= len(chunk)
        assert count or tracker.outstanding, "nothing is open, and nothing may come"
        todo += tracker.admit(chunk[:count])
        fed += count
        if count == len(chunk) or not todo:
            continue
        stops += 1
        random.shuffle(todo)
        first = min(todo)
        for size in (len(todo) // 2, len(todo) // 4, 1):
            finishing, todo = todo[:size], todo[size:]
            for each in finishing:
                if each != first:
                    tracker.done(each)
            todo += [first] if first in finishing else []
            assert tracker.position is not None
            text = encode(tracker.position, tracker.beyond)
            assert len(text) <= MAP_LIMIT
            assert decode(tracker.position, text).finished == tracker.beyond
        todo.remove(first)
        tracker.done(first)
    assert stops, "it never came to the limit"


def test_there_is_room_for_as_much_as_is_documented() -> None:
    dense = Tracker()
    assert dense.room(range(3 * SPAN)) == SPAN == 15_712
    dense.admit(range(SPAN))
    assert dense.room([SPAN]) == 0
    dense.done(1)
    assert dense.room([SPAN]) == 0  # what counts is the record at the watermark
    dense.done(0)
    assert dense.room(range(SPAN, 2 * SPAN)) == 2
    sparse = Tracker()
    far = [n * 2**40 for n in range(1_000)]
    assert sparse.room(far) == ALWAYS == 109


def test_what_an_earlier_owner_finished_takes_room_as_well() -> None:
    tracker = Tracker({SPAN + 5})
    assert tracker.room(range(SPAN)) == ALWAYS - 1
    tracker.admit(range(ALWAYS - 1))
    assert tracker.room([ALWAYS]) == 0
    for offset in range(6):
        tracker.done(offset)
    assert tracker.room(range(ALWAYS, SPAN)) == SPAN - ALWAYS
