"""Names of the methods that settings choose by; none of the methods is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from problems.suggest import did_you_mean

_NAMES = {
    "initial": ("magnitude", "wanda", "gradient", "random", "exchange"),
    "selection": ("taylor", "gradient", "magnitude", "wanda", "random"),
    "curvature": ("monte-carlo", "empirical", "exact", "gram", "fisher+gram"),
    "acceptance": ("block", "pass", "off"),
}


def known_names(kind: str) -> tuple[str, ...]:
    """List the names that a setting takes.

    Parameters
    ----------
    kind : {"initial", "selection", "curvature", "acceptance"}
    """
    return _NAMES[kind]


@dataclass(frozen=True)
class NameOf:
    """Annotation of text that must be one of :func:`known_names`."""

    kind: str

    def check(self, name: str) -> str:
        """Return a known name.

        Raises
        ------
        ValueError
            For another, with the nearest and all known ones.
        """
        known = known_names(self.kind)
        if name not in known:
            raise ValueError(f"should be one of {', '.join(known)}{did_you_mean(name, known)}")
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))
