"""Public names that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    namespace: dict[str, Any], home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    namespace : dict
        The package's ``globals()``.
    home : mapping
        Public name → module that defines it.
    """

    def getattribute(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        return namespace.setdefault(name, getattr(importlib.import_module(home[name]), name))

    def names() -> list[str]:
        return sorted({*namespace, *home})

    return getattribute, names
