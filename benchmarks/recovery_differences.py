"""Differences of test losses between our best model and those of other masks, sample by sample."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from benchmarks.pruning import ICBS

HEAD = [
    "Differences of the test loss, sample by sample (± is the standard error of their mean): a "
    "level's model of iCBS with the lowest held-out loss, minus another method's. Negative is "
    "better.",
    "",
]
Found = list[tuple[Any, dict[str, Any]]]


def differences(known: Found) -> list[str]:
    """Return the table of a model's cells; no lines without recorded losses of two methods."""
    lines = []
    texts = ["test", *(["foreign"] if any("foreign" in found for _, found in known) else [])]
    with_losses = [(c, found) for c, found in known if "losses" in found["test"]]
    for level in dict.fromkeys(cell.mask.level for cell, _ in with_losses):
        own = [(c, f) for c, f in with_losses if c.mask.level == level and c.mask.seed == 0]
        ours = [(c, f) for c, f in own if c.mask.method in ICBS]
        if not ours:
            continue
        best, its = min(ours, key=lambda pair: _heldout(pair[1]))
        for cell, found in own:
            if cell.mask.method not in ICBS:
                names = (f"{c.mask.method}, {c.recovery}" for c in (best, cell))
                columns = (_difference(its[text], found[text]) for text in texts)
                lines.append(f"| {level} | {' | '.join(names)} | {' | '.join(columns)} |")
    if not lines:
        return []
    titles = " | ".join(["level", "ours", "other", *texts])
    return [*HEAD, f"| {titles} |", "| --- | --- | --- |" + " ---: |" * len(texts), *lines, ""]


def _heldout(found: dict[str, Any]) -> float:
    """Return the held-out loss at the end, or that before a recovery, if one was measured."""
    return float(found.get("recovered", {}).get("loss") or found.get("initial") or float("inf"))


def _difference(ours: dict[str, Any], other: dict[str, Any]) -> str:
    pairs = zip(ours["losses"], other["losses"], strict=True)
    each = [a - b for a, b in pairs]
    return f"{fmean(each):+.4f} ± {stdev(each) / len(each) ** 0.5:.4f}"
