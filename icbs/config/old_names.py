"""Deprecated settings of version 0.1, converted to the current names.

To be deleted in the version after next, with its imports in :class:`icbs.PrunerConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from icbs.config.constants import (
    ALLOCATION_FLOOR,
    GRAM_WEIGHT,
    MAX_SAMPLES,
    MIN_SHARE,
    SELECTION_SHARE,
)
from icbs.config.messages import brief
from icbs.errors import ConfigError

#: Settings that moved to the group ``paper``.
PAPER = ("gradient_weight", "ridge", "fix_prune", "fix_keep")

#: Setting that became a constant → its value, and the alternative.
CONSTANTS: dict[str, tuple[float, str]] = {
    "allocation_floor": (ALLOCATION_FLOOR, "give single layers their density with densities"),
    "min_share": (MIN_SHARE, "schedule='uniform' gives every layer a block in every pass"),
    "gram_weight": (GRAM_WEIGHT, "leave it out"),
    "selection_share": (SELECTION_SHARE, "leave it out"),
    "sample_growth": (1.0, "raise gradient_samples and curvature_samples instead"),
    "max_samples": (MAX_SAMPLES, "pass fewer batches, such as itertools.islice(batches, 10)"),
}


def translate(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return settings by their current names, and a note for each old one.

    If an old and a current name are both given, the later one counts.

    Raises
    ------
    ConfigError
        For an old setting without an equivalent; the message names the remedy.
    """
    settings: dict[str, Any] = {}
    paper: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in given.items():
        if name in CONSTANTS:
            constant, remedy = CONSTANTS[name]
            if value != constant:
                raise ConfigError(
                    f"{name} = {brief(value)}: it is {constant:g} in every run now; {remedy}"
                )
            notes.append(f"{name} is {constant:g} in every run; leave it out")
        elif name in PAPER:
            paper[name] = value
            notes.append(f"{name} is now paper.{name}: paper={{{name!r}: {brief(value)}}}")
        elif name == "caution":
            settings["damping"] = value
            notes.append("caution is now damping")
        elif name != "acceptance_unit":
            settings[name] = value
    if paper:
        group = given.get("paper", {})
        group = group.model_dump(exclude_unset=True) if isinstance(group, BaseModel) else group
        settings["paper"] = group | paper if isinstance(group, dict) else group
    if "acceptance_unit" in given or isinstance(given.get("acceptance"), bool):
        settings["acceptance"] = _acceptance(given)
        notes.append(
            "acceptance is now 'block', 'pass' or 'off', and acceptance_unit is not a setting any "
            f"more; write acceptance={settings['acceptance']!r}"
        )
    return settings, notes


def present_name(name: str) -> str | None:
    """Return the current name of an old setting; None if it was not renamed, or was removed."""
    if name in PAPER:
        return f"paper.{name}"
    return {"caution": "damping", "acceptance_unit": "acceptance"}.get(name)


def _acceptance(given: Mapping[str, Any]) -> Any:
    """Combine the two old settings into ``acceptance``."""
    rule, unit = given.get("acceptance", "block"), given.get("acceptance_unit", "block")
    if unit not in ("block", "pass"):
        raise ConfigError(f"acceptance_unit = {brief(unit)}: write acceptance='block' or 'pass'")
    if rule is False or rule == "off":
        if unit == "pass":
            raise ConfigError(
                "acceptance=False with acceptance_unit='pass' is not supported any more: "
                "acceptance='off' keeps every move and measures each block; leave "
                "acceptance_unit out"
            )
        return "off"
    return unit if rule is True or rule in ("block", "pass") else rule
