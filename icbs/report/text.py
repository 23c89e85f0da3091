"""A result in ten lines of plain text, for ``print(result)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icbs.figures import counted, significant
from icbs.records.live import duration
from icbs.report.layers import by_kind, layer_figures

if TYPE_CHECKING:
    from icbs.result import Result

MOST = 6
"""Lines of layers, at most."""


def describe(result: Result) -> str:
    """Say what a run came to: weights kept, loss, time, and what became of the layers.

    Parameters
    ----------
    result : Result
    """
    from icbs.result import density_in_words

    sizes = {name: (mask.numel(), int(mask.sum())) for name, mask in result.masks.items()}
    failures = sum(bool(row.failure) for row in result.history)
    lines = [
        density_in_words(result.summary()),
        f"held-out loss {significant(result.initial_loss)} at the start, "
        f"{significant(result.loss)} now",
        f"{counted(result.passes, 'pass')}, {counted(len(result.history), 'block')}, "
        f"{result.accepted:.0%} kept, "
        f"{duration(result.seconds)}" + (f", {failures} blocks without an answer" * bool(failures)),
    ]
    layers = layer_figures(result.history, sizes, by_pass=True)
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
