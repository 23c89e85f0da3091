"""A result as a few lines of text, for ``print(result)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from icbs.formatting import counted, duration, significant
from icbs.model.coverage import density_in_words
from icbs.report.layers import by_kind, layer_figures, sizes_of
from icbs.run.history import BlockRecord
from icbs.run.proof import Proof

MAX_ROWS = 6
"""Largest number of lines about layers."""


def describe(
    summary: Mapping[str, Any], masks: Mapping[str, Tensor], history: Sequence[BlockRecord]
) -> str:
    """Describe a result: weights kept, loss, time, and the layers.

    Parameters
    ----------
    summary : mapping
        See :meth:`icbs.Result.summary`.
    masks : mapping of str to Tensor of bool
    history : sequence of BlockRecord
    """
    sizes = sizes_of(masks, summary)
    failures = counted(summary["failures"], "solver failure")
    lines = [
        density_in_words(summary),
        f"held-out loss {significant(summary['initial_loss'])} at the start, "
        f"{significant(summary['loss'])} now",
        f"{counted(summary['passes'], 'pass')}, {counted(summary['blocks'], 'block')}, "
        f"{summary['accepted']:.0%} kept, {duration(summary['seconds'])}"
        + (f", {failures}" if summary["failures"] else ""),
    ]
    if proof := Proof.of(history):
        lines.append(str(proof))
    layers = layer_figures(history, sizes, by_pass=True)
    if len(layers) > MAX_ROWS:
        layers = by_kind(layers)
    for layer in layers[:MAX_ROWS]:
        several = f" ({layer.layers} layers)" if layer.layers > 1 else ""
        lines.append(
            f"  {layer.name}{several}: density {layer.density:.4f}, "
            f"{layer.accepted} of {layer.blocks} blocks kept"
        )
    if len(layers) > MAX_ROWS:
        lines.append(f"  and {len(layers) - MAX_ROWS} more kinds of layers")
    return "\n".join(lines)
