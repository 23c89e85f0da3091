"""Registries of parts of the pruner: built-in, registered, or entry points of distributions."""

from __future__ import annotations

import importlib
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from icbs.errors import ConfigError
from problems.suggest import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one role, by name; each is imported at first use.

    Parameters
    ----------
    role : str
        Name of the role in messages, such as ``"curvature"``.
    group : str
        Entry-point group for objects of other distributions.
    builtin : dict of str to str
        Name → ``module:attribute``. Plug-ins can't replace a built-in name.
    """

    def __init__(self, role: str, group: str, builtin: dict[str, str]) -> None:
        self.role, self.group, self.builtin = role, group, builtin
        self._registered: dict[str, T] = {}

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """Names of all objects, built-in ones first, without importing them."""
        others = {*self._entries, *self._registered}
        return [*self.builtin, *sorted(others - set(self.builtin))]

    def register(self, name: str, item: T) -> T:
        """Register an object for this process.

        Raises
        ------
        ConfigError
            If the name is that of a built-in object.
        """
        if name in self.builtin:
            raise ConfigError(f"{self.role} {name!r} is built in; choose another name")
        self._registered[name] = item
        return item

    def get(self, name: str) -> T:
        """Return an object by name.

        Raises
        ------
        ConfigError
            If the name is unknown, or the object can't be imported.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self.builtin:
            return _load(self.builtin[name])
        if name not in self._entries:
            raise ConfigError(self.unknown(name))
        entry = self._entries[name]
        try:
            return entry.load()
        except Exception as error:
            raise ConfigError(
                f"{self.role} {name!r} ({entry.value}) can't be imported: "
                f"{type(error).__name__}: {error}"
            ) from error

    def unknown(self, name: object) -> str:
        """Return the message for a name that is not registered."""
        names = self.names()
        return f"unknown {self.role} {name!r}{did_you_mean(name, names)}; known: {', '.join(names)}"

    def check(self, name: str) -> str:
        """Return the name if it is registered.

        Raises
        ------
        ValueError
            If it is not (the exception that pydantic expects of validators).
        """
        if name not in self.names():
            raise ValueError(self.unknown(name))
        return name


def _load(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


_SOURCES = "icbs.curvature.named"
CURVATURES: Registry[Any] = Registry(
    "curvature",
    "icbs.curvature",
    {
        "monte-carlo": f"{_SOURCES}:monte_carlo",
        "empirical": f"{_SOURCES}:empirical",
        "exact": f"{_SOURCES}:exact",
        "gram": f"{_SOURCES}:gram",
        "fisher+gram": f"{_SOURCES}:fisher_and_gram",
    },
)
"""``factory(settings)`` makes a :class:`icbs.curvature.source.CurvatureSource`."""

_SCORES = "icbs.selection.scores"
SCORES: Registry[Any] = Registry(
    "score",
    "icbs.scores",
    {
        "magnitude": f"{_SCORES}:magnitude",
        "wanda": f"{_SCORES}:wanda",
        "gradient": f"{_SCORES}:gradient",
        "taylor": f"{_SCORES}:taylor",
        "random": f"{_SCORES}:random",
        "trajectory": "icbs.trajectory.score:TrajectoryScore",
    },
)
"""``score(layer, pass_info, generator)``, or a class of such scores made with the settings; see
:mod:`icbs.selection.scores`."""

_GROUPS = "icbs.groups"
GROUP_SCORES: Registry[Any] = Registry(
    "score of groups",
    "icbs.group_scores",
    {
        "fisher": f"{_GROUPS}.scores:fisher",
        "magnitude": f"{_GROUPS}.scores:magnitude",
        "gradient": f"{_GROUPS}.scores:gradient",
        "taylor": f"{_GROUPS}.scores:taylor",
        "random": f"{_GROUPS}.scores:random",
        "apoz": f"{_GROUPS}.activations:apoz",
        "flap": f"{_GROUPS}.activations:flap",
        "slimming": f"{_GROUPS}.slimming:slimming",
    },
)
"""``score(information)``; see :mod:`icbs.groups.scores`."""

_RULES = "icbs.acceptance"
ACCEPTANCES: Registry[Any] = Registry(
    "acceptance",
    "icbs.acceptance",
    {
        "block": f"{_RULES}.per_block:PerBlock",
        "pass": f"{_RULES}.per_pass:PerPass",
        "off": f"{_RULES}.per_block:KeepAll",
    },
)
"""Classes of :class:`icbs.acceptance.rule.AcceptanceRule`."""

_KINDS = "icbs.model.kinds"
KINDS: Registry[Any] = Registry(
    "kind of layer",
    "icbs.kinds",
    {
        "linear": f"{_KINDS}:Linear",
        "convolution": f"{_KINDS}:Convolution",
        "conv1d": f"{_KINDS}:Transposed",
    },
)
"""Classes of :class:`icbs.model.kinds.Kind`."""

_METHODS = "icbs.recovery"
RECOVERIES: Registry[Any] = Registry(
    "recovery method",
    "icbs.recoveries",
    {
        "statistics": f"{_METHODS}.statistics:StatisticsMethod",
        "least-squares": f"{_METHODS}.least_squares:LeastSquares",
        "global": f"{_METHODS}.global_step:GlobalStep",
        "blocks": f"{_METHODS}.blocks:Blocks",
        "distill": f"{_METHODS}.distill:Distill",
    },
)
"""Classes of :class:`icbs.recovery.method.Method`, in the order in which ``auto`` tries them."""
