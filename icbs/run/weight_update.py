"""Weights that move: a function replaces them between passes, and the loss decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from icbs.run.context import RunContext
from icbs.run.snapshot import Snapshot
from icbs.run.state import RunState

WeightUpdate = Callable[[RunContext, RunState], Mapping[str, Tensor] | None]
"""``update(context, state)`` returns new weights by layer name, shape (out, in), with the values
that weights have where kept and take when their gates open; layers left out keep theirs. It must
not write to the model, and depend on its arguments alone, so that a resumed run agrees."""


def update_weights(update: WeightUpdate, context: RunContext, state: RunState) -> bool:
    """Replace weights, and take them back unless the held-out loss does not rise.

    Parameters
    ----------
    update : callable
        See :data:`WeightUpdate`.
    context, state
        ``state.loss`` and the best masks and weights follow.

    Returns
    -------
    bool
        Whether the new weights stay.

    Raises
    ------
    LayerError
        If new weights have another shape, or are not finite; the old ones are then set.
    KeyError
        If a name is not that of a layer to prune.
    """
    found = update(context, state)
    if not found:
        return False
    layers = {layer.name: layer for layer in context.layers}
    before, accepted = Snapshot.take(context.layers), False
    try:
        for name, matrix in found.items():
            layers[name].replace_weights(matrix)
        loss = context.holdout.measure()
        accepted = loss <= state.loss
    finally:
        if not accepted:
            before.apply(context.layers)
    if accepted:
        state.loss = loss
        state.keep_best(context.layers)
    else:
        context.holdout.measure()  # what it remembers is of the weights that were taken back
    return accepted
