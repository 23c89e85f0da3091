"""Deprecated import paths of version 0.1, as aliases of the new ones.

To be deleted in the version after next, with its line in ``icbs/__init__.py``.
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

#: Old name of a package or module of ``icbs`` → its new name. The longest match counts.
RENAMED = {
    "baselines": "layerwise",
    "baselines.descent": "layerwise.exchange_kernel",
    "baselines.exchange": "layerwise.weight_exchange",
    "baselines.prune": "layerwise.pruning",
    "baselines.walk": "layerwise.execution_order",
    "fetching": "downloads",
    "fetching.caching": "downloads",
    "history": "run.history",
    "layers": "model",
    "layers.allocation": "selection.allocation",
    "result": "run.result",
    "saving": "export",
    "saving.folder": "run.run_folder",
    "saving.holding": "export.training",
    "saving.reading": "export.safetensors_files",
    "saving.writing": "export.safetensors_files",
    "tasks": "zoo",
    "tasks.names": "zoo",
    "tasks.scoring": "zoo.image_tasks",
    "text": "lm",
    "text.claims": "lm.declared_sizes",
}


class _Alias(ModuleType):
    """A module with the attributes of another."""

    def __init__(self, name: str, new: ModuleType) -> None:
        super().__init__(name, new.__doc__)
        self.__path__: list[str] = []
        self._new = new

    def __getattr__(self, name: str) -> Any:
        return getattr(self._new, name)

    def __dir__(self) -> list[str]:
        return dir(self._new)


class _Finder(MetaPathFinder, Loader):
    """Import hook that returns the new module for an old name, with a warning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if new_name(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = new_name(spec.name)
        assert new is not None
        warnings.warn(
            f"{spec.name} is now {new}; the old name will be removed in the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return _Alias(spec.name, importlib.import_module(new))

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has been executed under its new name."""


def new_name(fullname: str) -> str | None:
    """Return the new name of a module; None if it has not been renamed."""
    package, *parts = fullname.split(".")
    for length in range(len(parts), 0, -1):
        new = RENAMED.get(".".join(parts[:length]))
        if package == "icbs" and new is not None:
            return ".".join([package, new, *parts[length:]])
    return None


def install() -> None:
    """Install the import hook."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
