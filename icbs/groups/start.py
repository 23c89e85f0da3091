"""Initial masks of groups: those with the best scores, within the density and the floors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.errors import LayerError
from icbs.groups.density import best_state, number_kept, protected
from icbs.groups.grouping import Grouping, State
from icbs.groups.problem import best_start
from icbs.groups.scores import Float, GroupInformation
from icbs.model.gates import WidePart
from icbs.plugins import GROUP_SCORES
from icbs.run.context import RunContext
from icbs.selection.block_selection import Tabu


def start_groups(
    context: RunContext, masks: Mapping[str, Tensor] | None, generator: torch.Generator
) -> tuple[int, dict[str, Tabu]]:
    """Set the initial masks of groups; return the number of samples used, and the tabu lists.

    Parameters
    ----------
    context : RunContext
    masks : mapping of str to Tensor of bool, optional
        Given masks, by layer name; already checked.
    generator : torch.Generator
    """
    grouping, config = context.grouping, context.config
    assert grouping is not None
    if masks is not None:
        state = grouping.state_of(masks)
        grouping.close(state)
        return 0, tabus_of(grouping, (1 - state).astype(np.float64), config.tabu)
    grouping.close(np.zeros(grouping.count, dtype=np.uint8))
    pass_info = context.take_pass(generator, 0, lambda _: {grouping.gates.name: grouping.gates})
    solved = config.initial == "qubo"
    score = GROUP_SCORES.get("fisher" if solved else config.initial)
    scores = score(GroupInformation(grouping, context, pass_info, generator))
    if solved:
        state = best_start(context, pass_info, scores)
    else:
        state = best_state(grouping, scores, config)
    grouping.close(state)
    return pass_info.count, tabus_of(grouping, scores, config.tabu)


def check_state(grouping: Grouping, state: State, config: PrunerConfig) -> None:
    """Refuse given masks with another number of groups than the density asks for.

    Raises
    ------
    LayerError
    """
    if grouping.budget is not None:
        if not grouping.budget.holds(state):
            raise LayerError(
                f"the masks keep {grouping.budget.share_of(state):.4f} of the model's "
                f"{grouping.budget.quantity}, more than the budget of {grouping.budget.share:g}"
            )
        return
    for pool in grouping.pools:
        kept, wanted = int((state[pool.members] == 0).sum()), number_kept(pool, config)
        if kept != wanted:
            raise LayerError(
                f"the masks keep {kept} of the {len(pool.members)} groups of {pool.name!r}, and "
                f"the density asks for {wanted}; set density={kept / len(pool.members):.6g}"
            )


def tabus_of(grouping: Grouping, scores: Float, length: float) -> dict[str, Tabu]:
    """Return tabu lists with one weight for each group.

    In pools of several sets without a budget, the best groups of each set never move, as many as
    its floor, so that no move can empty a dimension.
    """
    fixed = np.zeros(grouping.count, dtype=bool)
    kept = np.where(grouping.closed() == 0, scores, -np.inf)
    fixed[protected(grouping, kept)] = True
    for pool in grouping.pools:
        if pool.sets == 1 or grouping.budget is not None:
            fixed[pool.members] = False  # the constraint of a block keeps to the floors
    found = {}
    for part in grouping.gates.parts:
        assert isinstance(part, WidePart)
        index, gate = part.representatives
        free = torch.zeros_like(part.layer.pruned)
        free[index[torch.from_numpy(~fixed).to(gate.device)[gate]]] = True
        found[part.layer.name] = Tabu(free, length)
    return found
