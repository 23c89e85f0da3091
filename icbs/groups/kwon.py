"""Mask search, rearrangement and tuning of Kwon et al. 2022 (arXiv 2204.09656), stage by stage.

1. *Search* (section 4.1): the diagonal of the empirical Fisher information with respect to the
   gates; the best number of heads is enumerated, and the rest of the budget goes to neurons.
2. *Rearrangement* (section 4.2): within each dimension, a greedy pass over ``xᵀFx`` at a fixed
   number of pruned groups; here also by any solver on the same problem.
3. *Tuning* (section 4.3): scales of the kept groups of each dimension by least squares, towards
   a model that is pruned less; see :mod:`icbs.groups.tuning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from icbs import streams
from icbs.config import PrunerConfig
from icbs.data.objective import Loss
from icbs.errors import ConfigError, LayerError
from icbs.groups.budget import Budget
from icbs.groups.grouping import Grouping, State
from icbs.groups.scores import Float
from icbs.groups.tuning import tune
from icbs.model.modes import evaluation_mode
from icbs.run.context import RunContext
from problems import CardinalityQUBO
from solvers import solve


@dataclass
class KwonResult:
    """State, masks and losses of the stages."""

    state: State
    """Pruned groups after the last stage."""
    kept: dict[str, Tensor]
    """Dimension → kept groups."""
    masks: dict[str, Tensor]
    """Layer name → mask."""
    losses: dict[str, float]
    """Held-out loss of the dense model and after each stage."""
    objectives: dict[str, dict[str, float]]
    """``xᵀFx`` within each dimension after ``search``, ``greedy`` and ``solver``."""
    scales: dict[str, Tensor] = field(default_factory=dict)
    """Dimension → scale of each group, 0 where pruned; only tuned dimensions."""
    share: float = 1.0
    """Cost that remains, as a share of the dense model's."""


def prune_in_stages(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    rearrangement: str = "greedy",
    tuning: bool = True,
    after: Callable[[str], object] | None = None,
    **settings: Any,
) -> KwonResult:
    """Prune heads and neurons of a model in place by the three stages.

    Parameters
    ----------
    model, batches, loss
        As for :meth:`icbs.Pruner.prune`.
    rearrangement : str, default "greedy"
        ``greedy``, ``none``, or a solver by name (``icbs solvers``).
    tuning : bool, default True
        Whether to tune the scales of kept groups.
    after : callable, optional
        ``after(stage)`` after each stage but the last, while the model has its masks.
    **settings
        Of :class:`icbs.PrunerConfig`: ``groups``, ``budget``, ``curvature_samples`` (2048 in the
        paper), ``acceptance_samples``, ``seed``.

    Raises
    ------
    ConfigError
        Without a budget; and as for :class:`icbs.Pruner`.
    LayerError, DataError
        As for :meth:`icbs.Pruner.prune`.
    """
    config = _config(settings)
    with evaluation_mode(model) as plain:
        context = RunContext.prepare(plain, batches, loss, config)
        grouping = context.grouping
        assert grouping is not None
        assert grouping.budget is not None
        losses = {"dense": context.holdout.measure()}
        factor = gate_gradients(context)
        importance = np.square(factor).sum(axis=0)
        state = search(grouping.budget, importance)
        losses["search"] = _measured(context, state)
        if after is not None:
            after("search")
        objectives = {"search": objective(grouping, factor, state)}
        arranged = state.copy()
        for span in grouping.spans:
            own = factor[:, span]
            if rearrangement == "greedy":
                arranged[span] = rearrange(own, state[span])
            elif rearrangement != "none":
                arranged[span] = _solved(own, state[span], rearrangement, config.seed)
        if rearrangement != "none":
            losses["rearranged"] = _measured(context, arranged)
            stage = "greedy" if rearrangement == "greedy" else "solver"
            objectives[stage] = objective(grouping, factor, arranged)
            if after is not None:
                after("rearranged")
        scales: dict[str, Tensor] = {}
        if tuning:
            grouping.close(arranged)
            scales = tune(context, arranged, search(_milder(grouping.budget), importance))
            losses["tuned"] = context.holdout.measure()
        return _result(context, arranged, losses, objectives, scales)


def tune_pruned(
    model: nn.Module,
    kept: Mapping[str, Tensor],
    batches: Iterable[Any],
    loss: Loss,
    **settings: Any,
) -> KwonResult:
    """Prune given groups of a dense model in place, and tune the scales of the others.

    The third stage alone, for the groups of any run.

    Parameters
    ----------
    model : nn.Module
        The dense model.
    kept : mapping of str to Tensor of bool
        Dimension → kept groups, such as ``result.groups`` of :meth:`icbs.Pruner.prune`.
    batches, loss
        As for :meth:`icbs.Pruner.prune`.
    **settings
        As for :func:`prune_in_stages`; the budget says how far the model is pruned that gives the
        outputs to aim at: half as much.

    Raises
    ------
    ConfigError, LayerError, DataError
        As for :func:`prune_in_stages`; LayerError also if a dimension is missing in ``kept``.
    """
    with evaluation_mode(model) as plain:
        context = RunContext.prepare(plain, batches, loss, _config(settings))
        grouping = context.grouping
        assert grouping is not None
        assert grouping.budget is not None
        if missing := [own.name for own in grouping.sets if own.name not in kept]:
            raise LayerError(
                f"kept has no {missing[0]!r}; give the kept groups of each dimension, or exclude it"
            )
        state = np.concatenate(
            [1 - kept[own.name].cpu().numpy().astype(np.uint8) for own in grouping.sets]
        )
        losses = {"dense": context.holdout.measure()}
        importance = np.square(gate_gradients(context)).sum(axis=0)
        losses["pruned"] = _measured(context, state)
        scales = tune(context, state, search(_milder(grouping.budget), importance))
        losses["tuned"] = context.holdout.measure()
        return _result(context, state, losses, {}, scales)


def _config(settings: dict[str, Any]) -> PrunerConfig:
    if settings.get("budget") is None:  # before the settings' own check, which offers density too
        raise ConfigError("the mask search needs a budget, such as budget={'macs': 0.5}")
    return PrunerConfig.of(**({"groups": "heads,neurons", "curvature": "empirical"} | settings))


def _milder(budget: Budget) -> Budget:
    """Return the budget of a model that is pruned half as much."""
    return Budget(budget.grouping, budget.costs, budget.quantity, (1 + budget.share) / 2)


def _result(
    context: RunContext,
    state: State,
    losses: dict[str, float],
    objectives: dict[str, dict[str, float]],
    scales: dict[str, Tensor],
) -> KwonResult:
    grouping = context.grouping
    assert grouping is not None
    assert grouping.budget is not None
    masks = {layer.name: layer.mask for layer in context.layers}
    share = grouping.budget.share_of(state)
    return KwonResult(state, grouping.kept(state), masks, losses, objectives, scales, share)


def _measured(context: RunContext, state: State) -> float:
    """Set a state and return its held-out loss."""
    assert context.grouping is not None
    context.grouping.close(state)
    return context.holdout.measure()


def gate_gradients(context: RunContext) -> Float:
    """Return A with ``F = AᵀA``, shape (N, groups), of the model with all groups kept."""
    grouping = context.grouping
    assert grouping is not None
    gates = grouping.block(np.arange(grouping.count))
    generator = streams.passes(context.config.seed)
    pass_info = context.take_pass(generator, 0, lambda _: {gates.name: gates})
    factors = []
    for model in pass_info.models(gates):
        if model.factor is None:
            raise ConfigError("the search needs a Fisher: curvature='empirical' or 'monte-carlo'")
        scaled = model.factor.double() * (model.weight / model.dispersion) ** 0.5
        factors.append(scaled.cpu().numpy())
    return np.concatenate(factors)


def search(budget: Budget, importance: Float) -> State:
    """Keep the most important groups of each kind, at the best number of groups of the first kind.

    For each number h of groups of the first kind (heads), the budget that is left buys groups of
    the second (neurons); the h with the largest kept importance is taken. The budget that is left
    is computed for each h from the whole budget. Where groups of a kind cost different amounts, or
    there are not two kinds, groups are taken by importance for their cost.
    """
    grouping = budget.grouping
    kinds = list(dict.fromkeys(own.kind for own in grouping.sets))
    slopes = budget.costs.slopes(np.zeros(grouping.count, dtype=np.uint8))
    kind_of = np.array([kinds.index(own.kind) for own in grouping.sets])[grouping.set_of]
    prices = [slopes[kind_of == kind] for kind in range(len(kinds))]
    if len(kinds) != 2 or any(np.ptp(price) > 1e-9 * price.max() for price in prices):
        return budget.best_state(importance)
    fixed = budget.dense - float(slopes.sum())
    orders = [_order(grouping, importance, kind_of == kind) for kind in range(2)]
    floors = [sum(o.floor for o in grouping.sets if o.kind == kind) for kind in kinds]
    best: tuple[float, int, int] | None = None
    for heads in range(floors[0], len(orders[0]) + 1):
        left = budget.target * (1 + 1e-12) - fixed - heads * prices[0][0]
        neurons = min(len(orders[1]), int(left // prices[1][0]))
        if neurons < floors[1]:
            break
        kept = importance[orders[0][:heads]].sum() + importance[orders[1][:neurons]].sum()
        if best is None or kept > best[0]:
            best = float(kept), heads, neurons
    assert best is not None  # the budget leaves room for the floors
    state = np.ones(grouping.count, dtype=np.uint8)
    state[orders[0][: best[1]]] = 0
    state[orders[1][: best[2]]] = 0
    return state


def _order(grouping: Grouping, importance: Float, members: npt.NDArray[np.bool_]) -> Any:
    """Return groups by importance, the best of each set, as many as its floor, first."""
    first = np.zeros(grouping.count, dtype=bool)
    for own, span in zip(grouping.sets, grouping.spans, strict=True):
        best = np.argsort(-importance[span], kind="stable")[: own.floor]
        first[span.start + best] = True
    order = np.lexsort((-importance, ~first))
    return order[members[order]]


def rearrange(factor: Float, state: State) -> State:
    """Exchange groups of one dimension in a greedy pass that lowers ``xᵀFx``.

    Each kept group in turn is pruned, and the group whose return gives the lowest ``‖A x‖²``
    is kept instead.

    Parameters
    ----------
    factor : array, shape (N, n)
        A with ``F = AᵀA``.
    state : array of uint8, shape (n,)
        1 = pruned.
    """
    state = state.copy()
    squares = np.square(factor).sum(axis=0)
    total = factor @ state
    if not state.any():
        return state
    for number in np.flatnonzero(state == 0):
        total = total + factor[:, number]
        state[number] = 1
        members = np.flatnonzero(state)
        change = squares[members] - 2 * (factor[:, members].T @ total)
        back = int(members[np.argmin(change)])
        state[back] = 0
        total = total - factor[:, back]
    return state


def _solved(factor: Float, state: State, solver: str, seed: int) -> State:
    """Solve ``min xᵀFx`` at a fixed number of pruned groups, from a state."""
    pruned = int(state.sum())
    if pruned in (0, len(state)):
        return state
    problem = CardinalityQUBO.from_factors(factor, np.zeros(len(state)), pruned)
    found = solve(problem, solver, seed=seed, initial_state=state).x
    return state if found is None else found


def objective(grouping: Grouping, factor: Float, state: State) -> dict[str, float]:
    """Return ``xᵀFx`` within each dimension."""
    return {
        own.name: float(np.square(factor[:, span] @ state[span]).sum())
        for own, span in zip(grouping.sets, grouping.spans, strict=True)
    }
