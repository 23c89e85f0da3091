"""The kept groups of a finished run, as figures and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icbs.groups.grouping import Grouping


def summarise(grouping: Grouping) -> dict[str, Any]:
    """Return the figures of the current masks, as plain values for ``summary.json``.

    ``groups`` has the numbers of groups and of kept groups by set, ``kinds`` their sums by kind,
    and ``shares`` the parameters and MACs that remain, as shares of the dense model's.
    """
    state = grouping.closed()
    groups = {name: list(counts) for name, counts in grouping.describe(state).items()}
    kinds: dict[str, list[int]] = {}
    for own in grouping.sets:
        total, kept = kinds.get(own.kind, [0, 0])
        kinds[own.kind] = [total + groups[own.name][0], kept + groups[own.name][1]]
    shares = {
        name: costs.total(state) / costs.total(0 * state) for name, costs in grouping.costs.items()
    }
    cut = all(own.dimension is not None for own in grouping.sets)
    return {"groups": groups, "kinds": kinds, "shares": shares, "cut": cut}


NAMES = {"macs": "MACs"}


def in_words(facts: Mapping[str, Any]) -> str:
    """Describe the kept groups, from the figures of :func:`summarise`."""
    counts = [f"{kept:,} of {total:,} {kind}" for kind, (total, kept) in facts["kinds"].items()]
    shares = [
        f"{share:.1%} of the {NAMES.get(name, name)}" for name, share in facts["shares"].items()
    ]
    words = f"{' and '.join(counts)} kept (density {facts['density']:.4f})"
    if not facts["cut"]:
        return f"{words}; masks only: the model is not smaller before weights are packed"
    return f"{words}; {' and '.join(shares)} of the model remain when the rest is cut out"
