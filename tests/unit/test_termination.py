from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.supervisor.exit_record import ExitRecord, InFlight, Memory, encode, naming
from penstock.supervisor.termination import LIMIT, write_termination

#: A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def in_flight(offset: int, *, key: str | None = "k", stack: str | None = None) -> InFlight:
    return InFlight("orders", 3, offset, key, 12.3456, stack)


def record(*items: InFlight, reason: str = "asked to", code: int = 2) -> ExitRecord:
    return ExitRecord.of(
        code,
        reason=reason,
        at=1_700_000_000.0,
        requested_by="SIGUSR2",
        drain_seconds=25.0,
        in_flight_at_deadline=items,
        uptime_seconds=3600.0,
        last_done_at=1_699_999_999.0,
    )


def written(tmp_path: Path, item: ExitRecord) -> dict[str, Any]:
    path = tmp_path / "termination-log"
    path.touch()
    assert write_termination(path, item)
    content = path.read_bytes()
    assert len(content) <= 4096
    data = json.loads(content)
    assert isinstance(data, dict)
    return data


def test_the_message_has_the_contract_s_fields(tmp_path: Path) -> None:
    assert written(tmp_path, record(in_flight(7, stack="File …"))) == {
        "code": 2,
        "name": "FORCED",
        "planned": False,
        "reason": "asked to",
        "requested_by": "SIGUSR2",
        "drain_seconds": 25.0,
        "uptime_seconds": 3600.0,
        "at": 1_700_000_000.0,
        "last_done_at": 1_699_999_999.0,
        "memory_peak_bytes": None,
        "memory_limit_bytes": None,
        "held_at_death": [],
        "in_flight_at_deadline": [
            {
                "topic": "orders",
                "partition": 3,
                "offset": 7,
                "key": "k",
                "age_seconds": 12.346,
                "stack": "File …",
            }
        ],
    }


def test_stacks_go_first_and_the_oldest_record_keeps_its_own(tmp_path: Path) -> None:
    data = written(tmp_path, record(*(in_flight(n, stack="s" * 2000) for n in range(3))))
    assert [item["offset"] for item in data["in_flight_at_deadline"]] == [0, 1, 2]
    assert ["stack" in item for item in data["in_flight_at_deadline"]] == [True, False, False]
    assert "in_flight_omitted" not in data
    assert data["reason"] == "asked to"


def test_then_later_records_with_their_number(tmp_path: Path) -> None:
    data = written(tmp_path, record(*(in_flight(n, stack="s") for n in range(500))))
    kept = [item["offset"] for item in data["in_flight_at_deadline"]]
    assert kept == list(range(len(kept)))
    assert data["in_flight_omitted"] == 500 - len(kept)
    assert len(kept) > 30  # as many as there is room for
    assert data["reason"] == "asked to"


def test_then_the_end_of_the_reason_but_not_the_first_record(tmp_path: Path) -> None:
    data = written(tmp_path, record(*(in_flight(n) for n in range(9)), reason="r" * 9000))
    assert [item["offset"] for item in data["in_flight_at_deadline"]] == [0]
    assert data["in_flight_omitted"] == 8
    assert data["reason"].startswith("r" * 3000)
    assert data["reason"].endswith("r…")


def test_the_reason_makes_room_for_the_first_record(tmp_path: Path) -> None:
    """Alone it would fit; what blocked the drain matters more than its last words."""
    data = written(tmp_path, record(*(in_flight(n) for n in range(9)), reason="r" * 3860))
    assert [item["offset"] for item in data["in_flight_at_deadline"]] == [0]
    assert data["reason"].endswith("r…")


def test_no_other_field_can_fill_the_message(tmp_path: Path) -> None:
    item = replace(record(in_flight(7, key="\0" * 9000)), requested_by="\0" * 9000)
    data = written(tmp_path, item)
    assert data["in_flight_at_deadline"][0]["offset"] == 7
    assert data["reason"] == "asked to"


def test_a_reason_alone_is_cut_too(tmp_path: Path) -> None:
    data = written(tmp_path, record(reason="é" * 9000))
    assert 1800 < len(data["reason"]) < 2048  # bytes count, and é has two
    assert "in_flight_omitted" not in data


text = st.text(max_size=400) | st.text(st.sampled_from('\x00\ud800😀"\\é'), max_size=3000)
items = st.builds(
    InFlight,
    topic=st.text(max_size=249),
    partition=st.integers(0, 2**31),
    offset=st.integers(0, 2**63),
    key=st.none() | text,
    age_seconds=st.floats(),
    stack=st.none() | text,
)
records = st.builds(
    ExitRecord.of,
    st.none() | st.integers(0, 255),
    reason=text,
    at=st.floats(),
    requested_by=text,
    drain_seconds=st.none() | st.floats(),
    in_flight_at_deadline=st.lists(items, max_size=30).map(tuple),
    uptime_seconds=st.floats(),
    last_done_at=st.none() | st.floats(),
    held_at_death=st.lists(items, max_size=30).map(tuple),
    memory=st.builds(Memory, st.none() | st.integers(0, 2**50), st.none() | st.integers(0, 2**50)),
)


@patient
@given(records, st.integers(1024, LIMIT))
def test_whatever_it_holds_it_is_one_line_of_json_within_the_limit(
    item: ExitRecord, limit: int
) -> None:
    content = encode(item, limit)
    assert len(content) <= limit
    assert b"\n" not in content
    data = json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["name"] == item.name
    kept = len(data["held_at_death"]) + len(data["in_flight_at_deadline"])
    total = len(item.held_at_death) + len(item.in_flight_at_deadline)
    assert kept + data.get("in_flight_omitted", 0) == total
    again = ExitRecord.from_json(data)
    assert again.key == item.key


def test_what_fits_reads_back_as_it_was() -> None:
    item = record(in_flight(7, key=None), in_flight(8, stack="line 1\nline 2"))
    again = ExitRecord.from_json(json.loads(encode(item, LIMIT)))
    ages = [replace_age(entry) for entry in item.in_flight_at_deadline]
    assert list(again.in_flight_at_deadline) == ages
    assert again.to_json() == item.to_json()


def test_what_was_held_at_a_death_comes_first_and_reads_back(tmp_path: Path) -> None:
    held = (in_flight(1), replace(in_flight(10), count=5, last=16))
    item = replace(
        record(*(in_flight(n, stack="s" * 900) for n in range(50))),
        held_at_death=held,
        memory=Memory(412_000_000, 400_000_000),
    )
    again = ExitRecord.from_json(written(tmp_path, item))
    assert [(i.offset, i.count, i.last) for i in again.held_at_death] == [(1, 1, None), (10, 5, 16)]
    assert again.memory == item.memory
    assert 1 < len(again.in_flight_at_deadline) < 50


def test_a_line_of_a_version_that_knew_no_deaths_is_read() -> None:
    data = record(in_flight(7)).to_json()
    for name in ("held_at_death", "memory_peak_bytes", "memory_limit_bytes"):
        del data[name]
    again = ExitRecord.from_json(data)
    assert (again.held_at_death, again.memory) == ((), Memory())


def test_the_sentence() -> None:
    batch = replace(in_flight(10, key=None), count=5, last=16)
    assert naming([]) == ""
    assert naming([in_flight(1)]) == " while handling orders[3]@1 (key k)"
    assert naming([in_flight(1), batch]) == (
        " while handling orders[3]@1 (key k), orders[3]@10 and 4 more"
    )
    assert naming([in_flight(n) for n in range(4)]).endswith("@2 (key k) and 1 other record")
    assert naming([in_flight(n) for n in range(9)]).endswith("@2 (key k) and 6 other records")
    assert str(Memory(412_000_000, 400_000_000)) == (
        "it held 412 MB of memory at most, limit 400 MB"
    )
    assert str(Memory(limit=5)) == ""


def replace_age(item: InFlight) -> InFlight:
    return InFlight(item.topic, item.partition, item.offset, item.key, 12.346, item.stack)


def test_an_earlier_message_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 10_000)
    assert write_termination(path, record())
    assert json.loads(path.read_bytes())["code"] == 2


def test_no_file_is_ever_made(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    assert not write_termination(path, record())
    assert list(tmp_path.iterdir()) == []
    assert not write_termination(Path("/dev/penstock-test"), record())
    assert not Path("/dev/penstock-test").exists()


def test_places_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody reads it: opening it must not wait
    (tmp_path / "file").touch()
    for path in (
        tmp_path,
        tmp_path / "pipe",
        tmp_path / "file" / "below",
        tmp_path / "no" / "such" / "directory",
        tmp_path / ("n" * 300),
        Path("nul\0byte"),
        Path("/dev/full"),
    ):
        assert not write_termination(path, record()), path


@pytest.mark.skipif(os.getuid() == 0, reason="root may write whatever the mode says")
def test_a_file_without_the_right_to_write_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.touch(mode=stat.S_IRUSR)
    assert not write_termination(path, record())
