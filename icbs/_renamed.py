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


class _Alias(MetaPathFinder, Loader):
    """Answers ``import icbs.OLD`` with the module that has the new name, and warns."""

    def __init__(self) -> None:
        self._own: dict[str, ModuleSpec | None] = {}

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
        module = importlib.import_module(new)
        self._own[module.__name__] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is, which has run already, and give back its own spec."""
        module.__spec__ = self._own.pop(module.__name__)


def new_name(fullname: str) -> str | None:
    """Return the new name of a module, or None where it has no other."""
    package, _, rest = fullname.partition(".")
    old, dot, inner = rest.partition(".")
    if package != "icbs" or old not in RENAMED:
        return None
    return f"icbs.{RENAMED[old]}{dot}{inner}"


def install() -> None:
    """Let old import paths work."""
    if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias())
