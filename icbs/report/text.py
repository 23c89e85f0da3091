"""A result in ten lines of plain text, for ``print(result)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from icbs.formatting import counted, duration, significant
from icbs.model.coverage import density_in_words
from icbs.report.layers import by_kind, layer_figures
from icbs.run.history import Row

MOST = 6
"""Lines of layers, at most."""


def describe(
    summary: Mapping[str, Any], masks: Mapping[str, Tensor], history: Sequence[Row]
) -> str:
    """Say what a run came to: weights kept, loss, time, and what became of the layers.

    Parameters
    ----------
    summary : mapping
        See :meth:`icbs.Result.summary`.
    masks : mapping of str to Tensor of bool
    history : sequence of Row
    """
    sizes = {name: (mask.numel(), int(mask.sum())) for name, mask in masks.items()}
    failures = counted(summary["failures"], "block") + " without an answer"
    lines = [
        density_in_words(summary),
        f"held-out loss {significant(summary['initial_loss'])} at the start, "
        f"{significant(summary['loss'])} now",
        f"{counted(summary['passes'], 'pass')}, {counted(summary['blocks'], 'block')}, "
        f"{summary['accepted']:.0%} kept, {duration(summary['seconds'])}"
        + (f", {failures}" if summary["failures"] else ""),
    ]
    layers = layer_figures(history, sizes, by_pass=True)
    if len(layers) > MOST:
        layers = by_kind(layers)
    for layer in layers[:MOST]:
        several = f" ({layer.layers} layers)" if layer.layers > 1 else ""
        lines.append(
            f"  {layer.name}{several}: density {layer.density:.4f}, "
            f"{layer.accepted} of {layer.blocks} blocks kept"
        )
    if len(layers) > MOST:
        lines.append(f"  and {len(layers) - MOST} more kinds of layer")
    return "\n".join(lines)
