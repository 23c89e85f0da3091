"""Replacement of weights between passes, accepted by the held-out loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from icbs.run.context import RunContext
from icbs.run.snapshot import Snapshot
from icbs.run.state import RunState

WeightUpdate = Callable[[RunContext, RunState], Mapping[str, Tensor] | None]
"""``update(context, state)`` returns new weights by layer name, shape (out, in), including the
values of pruned weights, which are used when their gates open; omitted layers are unchanged. It
must not modify the model, and must depend only on its arguments, so that resumed runs agree."""


def update_weights(update: WeightUpdate, context: RunContext, state: RunState) -> bool:
    """Replace weights, and undo that if the held-out loss increases.

    Parameters
    ----------
    update : callable
        See :data:`WeightUpdate`.
    context, state
        ``state.loss``, the best masks and weights, and the last row of the history are updated.

    Returns
    -------
    bool
        Whether the new weights were kept.

    Raises
    ------
    LayerError
        If new weights have another shape, or are not finite; the old ones are then restored.
    KeyError
        If a name is not that of a layer to prune.
    """
    found = update(context, state)
    if not found:
        return False
    layers = {layer.name: layer for layer in context.layers}
    before, previous, accepted = Snapshot.take(context.layers), state.loss, False
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
        context.holdout.measure()  # its cache is of the rejected weights
    if state.history and state.history[-1].step == state.step - 1:
        change = state.loss - previous
        state.history[-1] = replace(state.history[-1], weights=change)
    return accepted
