"""Names of groups of weights that are pruned as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from problems.suggest import did_you_mean

DIMENSION_KINDS = ("heads", "neurons", "channels", "blocks")
"""Groups that run through several layers, and that the cut removes."""
LAYER_KINDS = ("kernels", "strided")
"""Groups of weights of one convolution, which only have masks."""
BUDGETS = ("macs", "parameters", "latency")
"""Quantities that a budget can limit."""
_TILE = re.compile(r"(\d+)\s*[x×]\s*(\d+)")
_STRIDED = re.compile(r"strided:(\d+)")
_FORMS = "heads, neurons, channels, blocks, kernels, strided, or tiles of weights such as 4x1"


@dataclass(frozen=True)
class Tile:
    """Tiles of ``rows`` outputs by ``columns`` inputs."""

    rows: int
    columns: int


def tile_of(kind: str) -> Tile | None:
    """Parse ``NxM``; None for another kind."""
    found = _TILE.fullmatch(kind)
    return None if found is None else Tile(int(found[1]), int(found[2]))


def stride_of(kind: str) -> int | None:
    """Parse ``strided:S``; None for another kind, and for ``strided`` (the kernel's width)."""
    found = _STRIDED.fullmatch(kind)
    return None if found is None else int(found[1])


def within_layer(kind: str) -> bool:
    """Whether groups of a kind are weights of one layer, without a cut."""
    return kind not in DIMENSION_KINDS


def read_groups(given: Any) -> Any:
    """Read names of kinds, as text with commas or as a list.

    Raises
    ------
    ValueError
        For an unknown kind, naming the nearest; for kinds given twice or that can't be combined.
    """
    if given is None:
        return None
    listed = given.split(",") if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"should be {_FORMS}")
    kinds = [str(kind).strip() for kind in listed]
    for kind in kinds:
        tile, stride = tile_of(kind), stride_of(kind)
        known = kind in (*DIMENSION_KINDS, *LAYER_KINDS)
        if not known and tile is None and stride is None:
            hint = did_you_mean(kind, (*DIMENSION_KINDS, *LAYER_KINDS))
            raise ValueError(f"unknown group {kind!r}{hint}; should be {_FORMS}")
        if tile is not None and (tile.rows < 1 or tile.columns < 1 or tile == Tile(1, 1)):
            raise ValueError(f"a tile of {kind} is not a group; leave groups out, or use 4x1")
        if stride is not None and stride < 2:
            raise ValueError(f"{kind!r} has a stride below 2")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"{', '.join(kinds)} names a kind twice")
    if len(kinds) > 1 and any(map(within_layer, kinds)):
        raise ValueError(
            f"{', '.join(kinds)} can't be combined: kernels, strided and tiles are all weights of "
            "a layer; name one of them alone"
        )
    if "blocks" in kinds and len(kinds) > 1:
        raise ValueError("blocks contain all other groups; name blocks alone")
    return kinds


def read_budget(given: Any) -> Any:
    """Check a budget: one quantity, and the share of it that is kept.

    Raises
    ------
    ValueError
        For another quantity, several, or a share that is not between 0 and 1.
    """
    if given is None:
        return None
    if isinstance(given, str):
        name, _, value = given.partition("=")
        given = {name.strip(): value}
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError("should be one of macs, parameters, latency, with a share: {'macs': 0.5}")
    ((name, share),) = given.items()
    if name not in BUDGETS:
        raise ValueError(
            f"unknown budget {name!r}{did_you_mean(str(name), BUDGETS)}; should be macs, "
            "parameters or latency"
        )
    try:
        share = float(share)
    except (TypeError, ValueError):
        raise ValueError(f"{name} should be a share between 0 and 1, not {share!r}") from None
    if not 0 < share < 1:
        raise ValueError(
            f"{name}={share:g} should be a share of the dense model's {name}, above 0 and below 1"
        )
    return {name: share}
