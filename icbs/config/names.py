"""Names that settings accept for methods, without importing the methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from icbs.plugins import ACCEPTANCES, CURVATURES, GROUP_SCORES, SCORES
from problems.suggest import did_you_mean

UPDATING = ("sparsegpt", "alps", "compensated-exchange")
"""Layer-wise methods that set the initial masks and change the kept weights."""
LAYERWISE = ("exchange", *UPDATING)
"""Layer-wise methods, which are not scores, that set the initial masks."""


def known_names(kind: str) -> tuple[str, ...]:
    """List the names that a setting accepts.

    Parameters
    ----------
    kind : {"initial", "selection", "curvature", "acceptance"}
    """
    if kind == "selection":
        return tuple(SCORES.names())
    if kind == "initial":
        # "qubo" solves the problem of all groups at the dense model.
        return tuple(dict.fromkeys([*SCORES.names(), *LAYERWISE, *GROUP_SCORES.names(), "qubo"]))
    registry = {"curvature": CURVATURES, "acceptance": ACCEPTANCES}[kind]
    return tuple(registry.names())


@dataclass(frozen=True)
class NameOf:
    """Annotation of text that must be one of :func:`known_names`."""

    kind: str

    def check(self, name: str) -> str:
        """Return a known name.

        Raises
        ------
        ValueError
            For an unknown name; the message lists the known ones and the nearest.
        """
        known = known_names(self.kind)
        if name not in known:
            raise ValueError(f"should be one of {', '.join(known)}{did_you_mean(name, known)}")
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))
