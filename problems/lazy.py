"""Public names that are imported at their first use (PEP 562), and old names of renamed ones."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    namespace: dict[str, Any], home: Mapping[str, str], renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a module.

    Parameters
    ----------
    namespace : dict
        The module's ``globals()``.
    home : mapping
        Public name → module that defines it.
    renamed : mapping, optional
        Old name → full new name (``package.module.name``). The old name still works, with a
        ``DeprecationWarning``.
    """
    aliases = renamed or {}

    def getattribute(name: str) -> Any:
        if name in home:
            return namespace.setdefault(name, getattr(importlib.import_module(home[name]), name))
        if name in aliases:
            module, _, current = aliases[name].rpartition(".")
            warnings.warn(
                f"{namespace['__name__']}.{name} is now {aliases[name]}; the old name will be "
                "removed in the next release",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(importlib.import_module(module), current)
        raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*namespace, *home})

    return getattribute, names
