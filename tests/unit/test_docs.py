"""The documentation's tables are the code's."""

from __future__ import annotations

import re

from devtools import docs


def test_tables_have_not_drifted() -> None:
    for path in docs.files():
        text = path.read_text()
        assert docs.rendered(text) == text, f"{path.name}: run `make docs`"


def test_every_block_is_used() -> None:
    text = "".join(path.read_text() for path in docs.files())
    assert set(re.findall(r"<!-- begin (\w+) -->", text)) == set(docs.BLOCKS)


def test_links_lead_somewhere() -> None:
    for path in docs.files():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
