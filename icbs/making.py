"""Real pruning problems for whoever studies solvers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

from icbs.blocks.block import Block
from icbs.data.objective import Loss
from icbs.model.modes import evaluation_mode
from icbs.model.wrappers import inside
from icbs.pruner import Pruner
from icbs.run.context import RunContext
from icbs.run.start import start_run


def make_blocks(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    after: int = 0,
    **settings: Any,
) -> list[Block]:
    """Return the blocks that the pruner would solve next, one for each layer.

    Parameters
    ----------
    model, batches, loss
        As for :meth:`icbs.Pruner.prune`; the model is copied and stays as it is.
    after : int, default 0
        Passes of pruning done first: blocks at the initial mask differ from later ones.
    **settings
        Of the pruner; see :class:`icbs.PrunerConfig`.

    Returns
    -------
    list of Block
        ``block.problem`` is the QUBO, ``block.start`` the status quo, of energy 0.

    Examples
    --------
    >>> blocks = make_blocks(model, batches, loss, density=0.1)  # doctest: +SKIP
    >>> blocks[0].problem.save("block.npz")  # doctest: +SKIP
    """
    pruner = Pruner(**settings)
    with evaluation_mode(copy.deepcopy(inside(model))) as subject:
        context = RunContext.prepare(subject, batches, loss, pruner.config)
        state = start_run(context)
        for _ in range(after):
            pruner.step(context, state)
        return pruner.build(context, state, pruner.look(context, state, context.layers))
