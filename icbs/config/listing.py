"""The settings of a run as a person reads them: groups, units, ranges, first sentences."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from icbs.config import PrunerConfig

#: Group → its settings, in the order in which they are listed.
GROUPS: dict[str, tuple[str, ...]] = {
    "What is kept": (
        *("density", "densities", "constraint", "include", "exclude"),
        *("allocation", "allocation_floor"),
    ),
    "Where it starts": ("initial", "compare", "fix_prune", "fix_keep"),
    "How long": ("passes", "time_limit", "checkpoint_every", "seed"),
    "Who solves the blocks": ("solver", "solver_options", "solver_time_limit"),
    "Which blocks": ("block_size", "selection", "tabu", "schedule", "min_share"),
    "Gradient and curvature": (
        *("curvature", "gradient_samples", "curvature_samples", "selection_share", "sample"),
        *("sample_growth", "gradient_weight", "curvature_weight", "gram_weight", "ridge"),
    ),
    "Which moves are kept": (*("acceptance", "acceptance_unit", "acceptance_samples", "caution"),),
    "Memory and numbers": ("max_memory", "batch_size", "max_samples", "precision"),
}

UNITS = {
    "time_limit": "seconds",
    "solver_time_limit": "seconds a block",
    "max_memory": "bytes, or such as 6GB",
    "passes": "passes",
    "checkpoint_every": "passes",
    "block_size": "weights",
    "gradient_samples": "samples a pass",
    "curvature_samples": "samples a block",
    "acceptance_samples": "samples",
    "batch_size": "samples",
    "max_samples": "samples",
    "density": "share of the weights",
    "densities": "layer pattern: share",
    "allocation_floor": "share of the density",
    "fix_prune": "share of the pruned weights",
    "fix_keep": "share of the kept weights",
    "tabu": "share of the movable weights",
    "min_share": "share of the passes",
    "selection_share": "share of the samples",
    "include": "layer patterns",
    "exclude": "layer patterns",
    "solver": "a name of 'icbs solvers', or module:Class",
    "solver_options": "name: value",
    "constraint": "layer, output, input, or N:M",
}


def default_of(name: str) -> str:
    """Write the default of a setting as YAML would have it."""
    default = PrunerConfig.model_fields[name].get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return "-" if default in ({}, []) else str(default).replace("'", "")


def values_of(name: str) -> str:
    """Say which values a setting takes, with their unit."""
    field = PrunerConfig.model_fields[name]
    choices = [value for part in _parts(field.annotation) for value in _choices(part)]
    if choices:
        return ", ".join(choices)
    limits = _limits([*field.metadata, *_nested(field.annotation)])
    return ", ".join(part for part in (limits, UNITS.get(name, "")) if part)


def summary_of(name: str) -> str:
    """First sentence of what a setting means."""
    text = paragraphs(PrunerConfig.model_fields[name].description or "")
    return re.split(r"(?<=[.;])\s|\n", text, maxsplit=1)[0].rstrip(".;")


def paragraphs(text: str) -> str:
    """Join the lines of each paragraph of a docstring, without the marks of code."""
    joined = [" ".join(part.split()) for part in text.split("\n\n")]
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", "\n\n".join(joined)).replace("``", "")


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Members of a union; a plain type alone."""
    if get_origin(annotation) is Literal:
        return (annotation,)
    return get_args(annotation) or (annotation,)


def _choices(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    return [str(v) for v in get_args(annotation)] if get_origin(annotation) is Literal else []


def _nested(annotation: Any) -> list[Any]:
    """Limits that lie inside an annotation, as in ``float > 0, or none``."""
    found: list[Any] = []
    for part in get_args(annotation):
        for extra in getattr(part, "__metadata__", ()):
            found += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return found


def _limits(metadata: list[Any]) -> str:
    """Write limits as ``> 0 and < 1``."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    words = [
        f"{sign} {getattr(item, name):g}"
        for item in metadata
        for name, sign in signs.items()
        if hasattr(item, name)
    ]
    return " and ".join(words)
