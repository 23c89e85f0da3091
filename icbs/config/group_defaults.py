"""Defaults and contradictions of settings when groups of weights are pruned."""

from __future__ import annotations

from typing import Any

from icbs.plugins import GROUP_SCORES, SCORES
from problems.suggest import did_you_mean

_WITHOUT = {
    "constraint": "layer",
    "compare": "layer",
    "densities": {},
    "blocks_per_layer": 1,
}
"""Settings of single weights, with the only value that groups allow."""
_DENSITY = 0.1
"""The default density, which is recorded next to a budget."""
_OTHER = "use another score, such as magnitude"
_DEFAULTS = {"initial": "qubo", "block_size": "all", "acceptance": "pass"}


def adapt_to_groups(given: dict[str, Any]) -> dict[str, Any]:
    """Refuse settings that contradict ``groups``, and set the defaults for groups.

    Raises
    ------
    ValueError
        Naming the settings and the remedy.
    """
    initial = given.get("initial")
    if given.get("groups") is None:
        if given.get("budget") is not None:
            raise ValueError(
                f"budget={given['budget']!r} needs groups of weights; add groups, such as "
                "groups='heads,neurons', or set density instead"
            )
        groups_only = {*GROUP_SCORES.names(), "qubo"} - set(SCORES.names())
        if initial in groups_only:
            raise ValueError(
                f"initial={initial!r} scores groups of weights; add groups, or {_OTHER}"
            )
        return given
    for name, only in _WITHOUT.items():
        if given.get(name, only) != only:
            raise ValueError(
                f"{name}={given[name]!r} is for single weights, and groups={given['groups']!r} "
                f"prunes whole groups; leave {name} out"
            )
    paper = given.get("paper") or {}
    if isinstance(paper, dict) and (paper.get("fix_prune") or paper.get("fix_keep")):
        raise ValueError(
            "paper.fix_prune and paper.fix_keep are for single weights; leave them out"
        )
    known = [*GROUP_SCORES.names(), "qubo"]
    if initial is not None and initial not in known:
        raise ValueError(
            f"initial={initial!r} doesn't score groups{did_you_mean(str(initial), known)}; with "
            f"groups use one of {', '.join(known)}"
        )
    if given.get("allocation") == "loss":
        raise ValueError(
            "allocation='loss' moves single weights between layers; with groups use 'global'"
        )
    if given.get("budget") is not None:
        if given.get("density") not in (None, _DENSITY):
            raise ValueError("budget and density both say how much is kept; leave one of them out")
        if given.get("allocation") == "uniform":
            raise ValueError(
                "a budget is shared out over the model; leave allocation='uniform' out"
            )
        given = given | {"allocation": "global"}
    elif given.get("density") is None:
        raise ValueError(
            "groups need density (share of groups that is kept, such as 0.5) or budget (such as "
            "macs=0.5)"
        )
    return _DEFAULTS | given
