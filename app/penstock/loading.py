"""Find the application that ``MODULE:APP`` names."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Final

from penstock.app import App
from penstock.error_text import said, text_of, traceback_of
from penstock.errors import ConfigError

_OURS: Final = str(Path(__file__).parent) + os.sep
#: Files of the frames between a module and who imports it.
_MACHINERY: Final = (_OURS, "<", str(Path(importlib.__file__).parent) + os.sep)
#: How Python begins when an argument is misspelt, missing or one too many.
_CALLS: Final = re.compile(
    r"(App\.subscribe|(App|Retry|Breaker|Batch)\.__init__|dead_letter|skip|stop)\(\) "
)


def load_app(target: str) -> App:
    """Import ``package.module:attribute`` (or ``path/to/file.py:attribute``).

    The current directory is put on the path first, as ``python -m`` does, but only now: what
    Python and Penstock themselves import is not to be found there. A file's own comes before it.

    Raises:
        ConfigError: bad form, no such module or attribute, or the import raised.
    """
    name, colon, attribute = target.partition(":")
    if not name or not colon or not attribute:
        raise ConfigError(f"{target!r} is not MODULE:APP, for example shop.orders:app")
    _look_first_in(_here())
    if name.endswith(".py"):
        path = Path(name)
        _look_first_in(str(path.parent.resolve()))
        name = path.stem
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"no module named {error.name!r}: {target!r} is looked up from the current "
                "directory and PYTHONPATH"
            ) from error
        raise ConfigError(_broken(name, error)) from error
    except ConfigError as error:
        raise ConfigError(f"{error}{_place(error)}") from error
    except TypeError as error:
        if _calls_us(error):
            raise ConfigError(f"{text_of(error)}{_place(error)}") from error
        raise ConfigError(_broken(name, error)) from error
    except BaseException as error:  # SystemExit at import is a broken app as well
        raise ConfigError(_broken(name, error)) from error
    app = getattr(module, attribute, None)
    if app is None:
        raise ConfigError(f"module {name!r} has no {attribute!r}")
    if not isinstance(app, App):
        raise ConfigError(f"{target} is a {type(app).__name__}, not a penstock.App")
    return app


def _here() -> str:
    """The current directory, wherever the application goes later; ``""`` if it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def _look_first_in(directory: str) -> None:
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)


def _broken(name: str, error: BaseException) -> str:
    """One sentence, and then the application's part of the traceback."""
    where = error.__traceback__
    while where is not None and where.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        where = where.tb_next
    details = traceback_of(error.with_traceback(where)).rstrip()
    sentence = f"importing {name} failed: {said(error)}{_place(error)}"
    return sentence if details == said(error) else f"{sentence}\n{details}"


def _calls_us(error: TypeError) -> bool:
    """Whether it is the application's call of Penstock that does not fit."""
    return _CALLS.match(text_of(error)) is not None


def _place(error: BaseException) -> str:
    """Where the application's code was, for a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_MACHINERY)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
