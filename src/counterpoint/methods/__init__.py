"""Methods, one short file each: paper, defaults, composition. A new file here is a new method."""

import importlib
import importlib.util
import pkgutil
from functools import cache
from pathlib import Path

from counterpoint.errors import SettingsError, nearest
from counterpoint.methods.method import Method, Schedule


@cache
def methods() -> dict[str, Method]:
    """All methods that come with the package, by name: every file of this folder with a METHOD.

    >>> "prrfl" in methods()
    True
    """
    found = {}
    for module in pkgutil.iter_modules(__path__):
        method = getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHOD", None)
        if isinstance(method, Method):
            found[method.name] = method
    return dict(sorted(found.items()))


def absolute(name: str) -> str:
    """A method's name with a file's path in full, so that it is found from any folder.

    >>> absolute("prrfl"), absolute("/a/mine.py:METHOD")
    ('prrfl', '/a/mine.py:METHOD')
    """
    source, _, attribute = name.rpartition(":")
    return f"{Path(source).resolve()}:{attribute}" if source.endswith(".py") else name


def find_method(name: str) -> Method:
    """Return a method by its name, or your own by ``package.module:NAME`` or ``file.py:NAME``.

    Raises:
        SettingsError: if there is none.

    >>> find_method("prrfl").local.kind
    'deputy'
    """
    if name in methods():
        return methods()[name]
    source, colon, attribute = name.rpartition(":")
    if not colon:
        raise SettingsError(
            f"unknown method '{name}'{nearest(name, list(methods()))}; "
            f"known are {', '.join(methods())}; your own goes by its place: my_method.py:METHOD"
        )
    try:
        if source.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
    except Exception as error:  # whatever a user's file may raise
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(f"method '{name}': can't import {source}: {reason}") from error
    method = getattr(module, attribute, None)
    if not isinstance(method, Method):
        raise SettingsError(f"method '{name}': {source} has no Method named '{attribute}'")
    return method


__all__ = ["Method", "Schedule", "absolute", "find_method", "methods"]
