"""Find the application that ``MODULE:APP`` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from penstock.app import App
from penstock.errors import ConfigError


def load_app(target: str) -> App:
    """Import ``package.module:attribute`` (or ``path/to/file.py:attribute``).

    The current directory is put on the path first, as ``python -m`` does.

    Raises:
        ConfigError: bad form, no such module or attribute, or the import raised.
    """
    name, colon, attribute = target.partition(":")
    if not name or not colon or not attribute:
        raise ConfigError(f"{target!r} is not MODULE:APP, for example shop.orders:app")
    if name.endswith(".py"):
        path = Path(name)
        sys.path.insert(0, str(path.parent.resolve()))
        name = path.stem
    elif "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"no module named {error.name!r}: {target!r} is looked up from the current "
                "directory and PYTHONPATH"
            ) from error
        raise ConfigError(f"importing {name} failed:\n{traceback.format_exc()}") from error
    except ConfigError:
        raise
    except BaseException as error:  # SystemExit at import is a broken app as well
        raise ConfigError(f"importing {name} failed:\n{traceback.format_exc()}") from error
    app = getattr(module, attribute, None)
    if app is None:
        raise ConfigError(f"module {name!r} has no {attribute!r}")
    if not isinstance(app, App):
        raise ConfigError(f"{target} is a {type(app).__name__}, not a penstock.App")
    return app
