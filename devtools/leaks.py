"""Where a secret turned up that no one should read: logs, journal, status, messages.

Every :class:`~devtools.service.Service` is searched when it is closed, so that each scenario
tests this as well, whatever else it is about.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from penstock import paths
from penstock.settings import Settings, env_name

#: Shorter ones would be found in words that are none.
SHORTEST = 8
#: Files of this name hold a secret on purpose.
_KEPT = frozenset({paths.TOKEN_FILE})


class LeakError(AssertionError):
    """A secret was found; the text says where, and shows only its beginning."""


def secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    """The secrets among a service's settings: their values, or what their files hold."""
    for name, field in Settings.model_fields.items():
        secret = "SecretStr" in str(field.annotation)
        value = environment.get(env_name(name), "")
        if secret and value:
            yield value
        elif name.endswith("_file") and f"{name.removesuffix('_file')}" in Settings.model_fields:
            yield from _content(Path(value)) if value else ()


def _content(file: Path) -> Iterator[str]:
    try:
        yield file.read_text().strip()
    except OSError:
        return


def kept_in(directory: Path) -> Iterator[str]:
    """The token that a service made for itself."""
    yield from _content(directory / paths.TOKEN_FILE)


def files_below(directory: Path) -> Iterator[tuple[str, bytes]]:
    """What the files of a directory hold, but not those that are there to keep a secret."""
    for file in directory.rglob("*") if directory.is_dir() else ():
        if file.is_file() and file.name not in _KEPT:
            yield str(file), file.read_bytes()


def leaks(secrets: Iterable[str], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Sentences about secrets that are in a place, as they are or encoded.

    Raises:
        ValueError: a secret that is too short to be looked for.
    """
    forms = {form: secret for secret in set(secrets) for form in _forms(secret)}
    return [
        f"{where} has {secret[:3]}… in it"
        for where, content in places
        for secret in sorted({forms[form] for form in forms if form in content})
    ]


def _forms(secret: str) -> Iterator[bytes]:
    if len(secret) < SHORTEST:
        raise ValueError(f"{secret!r} is too short to be looked for: use {SHORTEST} characters")
    raw = secret.encode()
    yield raw
    yield json.dumps(secret)[1:-1].encode()  # as a line of the log has it
    yield raw.hex().encode()
    yield base64.b64encode(raw).rstrip(b"=")[:-1]  # also when more follows
