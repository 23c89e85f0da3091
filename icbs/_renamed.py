"""Import paths of version 0.1, which lead to the new ones for one more version.

Delete this file, and its line in ``icbs/__init__.py``, with the version after next.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Old name of a package or module of ``icbs`` → its new name.
RENAMED = {
    "baselines": "layerwise",
    "fetching": "downloads",
    "history": "run.history",
    "layers": "model",
    "result": "run.result",
    "saving": "export",
    "tasks": "zoo",
    "text": "lm",
}


class _Alias(ModuleType):
    """A module that holds nothing but the names of another."""

    def __init__(self, name: str, new: ModuleType) -> None:
        super().__init__(name, new.__doc__)
        self.__path__: list[str] = []
        self._new = new

    def __getattr__(self, name: str) -> Any:
        return getattr(self._new, name)

    def __dir__(self) -> list[str]:
        return dir(self._new)


class _Finder(MetaPathFinder, Loader):
    """Answers ``import icbs.OLD`` with the module of the new name, and warns."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if new_name(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = new_name(spec.name)
        assert new is not None
        warnings.warn(
            f"{spec.name} is now {new}; the old name goes with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return _Alias(spec.name, importlib.import_module(new))

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has run under its own name."""


def new_name(fullname: str) -> str | None:
    """Return the new name of a module, or None where it has no other."""
    package, _, rest = fullname.partition(".")
    old, dot, inner = rest.partition(".")
    if package != "icbs" or old not in RENAMED:
        return None
    return f"icbs.{RENAMED[old]}{dot}{inner}"


def install() -> None:
    """Let old import paths work."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
