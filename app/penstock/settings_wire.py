"""Settings on their way from the worker that resolved them to the supervisor.

See ``docs/decisions/0050-settings-are-resolved-once.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from penstock.settings import Settings

#: What the supervisor has no use for: it never touches Kafka, and code may put objects there.
_WORKERS_OWN: Final = frozenset({"kafka_options"})


def to_wire(settings: Settings) -> dict[str, Any]:
    """The settings as JSON can carry them, secrets included: for the supervisor alone.

    Paths become absolute: the application may have changed the directory when it was imported.
    """
    return {
        name: _wired(getattr(settings, name))
        for name in Settings.model_fields
        if name not in _WORKERS_OWN
    }


def from_wire(sent: object) -> Settings:
    """What :func:`to_wire` made; neither the environment nor the code is looked at.

    A worker that a reload started may be of a later version: a setting that it knows alone is
    left out.

    Raises:
        ValueError: it is not that; the text names settings, never their values.
    """
    if isinstance(sent, dict):
        sent = {name: value for name, value in sent.items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(sent)
    except ValidationError as error:
        names = {str(item["loc"][0]) if item["loc"] else "form" for item in error.errors()}
        raise ValueError(f"no settings: {', '.join(sorted(names))}") from None


def _wired(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.absolute())
    return list(value) if isinstance(value, tuple) else value
