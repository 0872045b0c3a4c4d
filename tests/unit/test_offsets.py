from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.offsets import Tracker, Watermark


def expected(admitted: list[int], finished: set[int]) -> int | None:
    """What a person would say: the smallest that is missing, or one past the last."""
    if not finished:
        return None
    missing = [offset for offset in admitted if offset not in finished]
    if not missing:
        return admitted[-1] + 1
    before = [offset for offset in admitted if offset < missing[0]]
    # Of the gap between two admitted offsets nothing is known: one past the last finished.
    return before[-1] + 1 if before else None


@given(st.data())
def test_the_position_is_where_everything_before_is_finished(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    cut = data.draw(st.integers(0, len(offsets)))
    mark = Watermark()
    mark.admit(offsets[:cut])
    admitted, finished = offsets[:cut], set[int]()
    waiting = list(admitted)
    last = -1
    while waiting or admitted != offsets:
        if admitted != offsets and (not waiting or data.draw(st.booleans())):
            more = offsets[len(admitted) : len(admitted) + data.draw(st.integers(1, 5))]
            mark.admit(more)
            admitted, waiting = admitted + more, waiting + more
        else:
            offset = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            mark.done(offset)
            finished.add(offset)
        assert mark.position == expected(admitted, finished)
        assert mark.outstanding == len(waiting)
        assert mark.position is None or mark.position >= last
        last = last if mark.position is None else mark.position
    assert mark.position == offsets[-1] + 1


@given(
    st.sets(st.integers(0, 30), min_size=1, max_size=10).map(sorted),
    st.integers(0, 40),
    st.data(),
)
def test_what_is_not_outstanding_is_refused_and_changes_nothing(
    offsets: list[int], strange: int, data: st.DataObject
) -> None:
    mark = Watermark()
    mark.admit(offsets)
    done = data.draw(st.lists(st.sampled_from(offsets), unique=True))
    for offset in done:
        mark.done(offset)
    before = mark.position, mark.outstanding
    for offset in {*done, strange} - (set(offsets) - set(done)):
        with pytest.raises(ValueError, match=f"offset {offset} is not outstanding"):
            mark.done(offset)
    assert (mark.position, mark.outstanding) == before


def test_nothing_finished_is_no_position() -> None:
    mark = Watermark()
    mark.admit([7, 9])
    assert mark.position is None
    mark.done(9)
    assert mark.position is None
    mark.done(7)
    assert mark.position == 10


@given(st.data())
def test_a_tracker_knows_what_is_finished_whatever_the_order(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=25)))
    known = data.draw(st.sets(st.sampled_from(offsets)))
    tracker = Tracker(known)
    finished, admitted, todo = set[int](), list[int](), list[int]()
    while todo or admitted != offsets:
        if admitted != offsets and (not todo or data.draw(st.booleans())):
            more = offsets[len(admitted) : len(admitted) + data.draw(st.integers(1, 6))]
            assert tracker.admit(more) == [offset for offset in more if offset not in known]
            admitted += more
            finished |= known & set(more)
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
