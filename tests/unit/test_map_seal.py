from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.map_seal import End, Seal, cut_off, mismatch, seal, unseal
from penstock.offset_map import (
    DEATHS_LIMIT,
    LIMIT,
    MAP_LIMIT,
    MOST_DEATHS,
    SPAN,
    BadMap,
    Deaths,
    decode,
    encode,
)

TOPIC = "AAECAwQFBgcICQoLDA0ODw"
SEALS = st.builds(
    Seal, st.integers(0, 2**63 - 1), st.sampled_from(["", TOPIC]), st.integers(-1, 2**31 - 1)
)


@given(SEALS, st.sets(st.integers(0, 300), min_size=1))
def test_what_is_sealed_comes_out(made_for: Seal, beyond: set[int]) -> None:
    text = encode(made_for.offset, {made_for.offset + each for each in beyond})
    sealed = unseal(seal(text, made_for))
    assert sealed == (made_for, text)


def test_nothing_to_say_is_no_metadata() -> None:
    assert seal("", Seal(5, TOPIC, 3)) == ""


def test_the_longest_fits() -> None:
    made_for = Seal(2**63 - 1, TOPIC, 2**31 - 1)
    every_other = {made_for.offset + each for each in range(1, SPAN, 2)}
    at = made_for.offset
    deaths = [Deaths(at + 2**61, at + 2**62, 2**31, 127)] * MOST_DEATHS
    text = encode(at, every_other, deaths)
    assert MAP_LIMIT < len(text) <= MAP_LIMIT + DEATHS_LIMIT
    metadata = seal(text, made_for)
    assert len(metadata) <= LIMIT
    sealed = unseal(metadata)
    assert sealed is not None
    assert decode(at, sealed.text).finished == every_other


@pytest.mark.parametrize("metadata", ["", "consumed by something else", "penstock:", "penstock3:1"])
def test_what_others_wrote_says_nothing(metadata: str) -> None:
    assert unseal(metadata) is None


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ("penstock1:UgECBA==", "of a form that does not say which offset"),
        ("penstock2:", "does not name an offset"),
        ("penstock2:5:", "does not name an offset"),
        ("penstock2:five:x:1:UgECBA==", "does not name an offset"),
        ("penstock2:5:x:one:UgECBA==", "does not name an offset"),
        ("penstock2:5:x:1:" + "A" * LIMIT, "3000 at most"),
    ],
)
def test_what_cannot_be_trusted_is_told(metadata: str, why: str) -> None:
    with pytest.raises(BadMap, match=why):
        unseal(metadata)


@pytest.mark.parametrize(
    ("made_for", "offset", "topic", "epoch", "why"),
    [
        (Seal(5, TOPIC, 3), 5, TOPIC, 3, None),
        (Seal(5, TOPIC, 3), 5, TOPIC, 1, None),  # the last record before it was of that epoch
        (Seal(5, TOPIC, 3), 5, TOPIC, -1, None),  # whoever wrote the offset knew of no epochs
        (Seal(5, "", -1), 5, "", -1, None),  # brokers that have neither
        (Seal(5, TOPIC, 3), 4, TOPIC, 3, "made for offset 5, and the group's is 4"),
        (Seal(5, TOPIC, 3), 6, TOPIC, 3, "made for offset 5, and the group's is 6"),
        (Seal(5, TOPIC, 3), 5, "other", 3, f"of id {TOPIC}, and this one's is other"),
        (Seal(5, TOPIC, 3), 5, "", 3, f"of id {TOPIC}, and this one's is unknown"),
        (Seal(5, "", 3), 5, TOPIC, 3, f"of id unknown, and this one's is {TOPIC}"),
        (Seal(5, TOPIC, 3), 5, TOPIC, 4, "at leader epoch 3, and the commit is of 4"),
        (Seal(5, TOPIC, -1), 5, TOPIC, 0, "at leader epoch -1, and the commit is of 0"),
    ],
)
def test_it_is_for_one_offset_of_one_topic(
    made_for: Seal, offset: int, topic: str, epoch: int, why: str | None
) -> None:
    found = mismatch(made_for, offset=offset, topic=topic, epoch=epoch)
    assert found is None if why is None else why in (found or "")


@pytest.mark.parametrize(
    ("epoch", "farthest", "end", "why"),
    [
        (3, 9, End(3, 10), None),
        (3, 9, End(3, 500), None),  # also when later epochs follow
        (3, 9, End(3, 9), "leader epoch 3 ends at 9, and the map reaches to 9"),
        (3, 9, End(3, 5), "leader epoch 3 ends at 5"),
        (3, 9, End(2, 10), "no records of leader epoch 3"),
        (3, 9, End(-1, -1), "no records of leader epoch 3"),  # it knows of no such epoch at all
        (3, 9, None, "no leader could tell"),
        (-1, 9, None, None),
    ],
)
def test_it_is_for_a_log_that_still_has_the_records(
    epoch: int, farthest: int, end: End | None, why: str | None
) -> None:
    found = cut_off(Seal(0, TOPIC, epoch), farthest, end)
    assert found is None if why is None else why in (found or "")
