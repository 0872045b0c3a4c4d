from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.record import Partition, Record, printable


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (None, None),
        (b"", ""),
        (b"customer-7", "customer-7"),
        ("Zoë".encode(), "Zoë"),
        (b"\x00\x01", "0x0001"),
        (b"a\nb", "0x610a62"),
        (b"\xff\xfe", "0xfffe"),
        (b"\x1b[31m", "0x1b5b33316d"),
    ],
)
def test_a_key_for_people(key: bytes | None, shown: str | None) -> None:
    assert printable(key) == shown


@given(st.binary(max_size=60))
def test_what_is_shown_can_always_be_printed_and_says_which_bytes(key: bytes) -> None:
    shown = printable(key)
    assert shown is not None
    assert shown.isprintable()
    assert key in (shown.encode(), bytes.fromhex(shown[2:]) if shown.startswith("0x") else None)


def test_where_a_record_is() -> None:
    record = Record("orders", 3, 42, 0, None, None, ())
    assert str(record) == "orders[3]@42"
    assert str(Partition("orders", 3)) == "orders[3]"
