"""Scales of the kept groups by least squares towards a milder pruned model (Kwon et al. 2022).

For a reader with weights W, inputs X of the pruned model, and outputs Y of the pruned and Y* of
the milder model, the scales 1 + z of the groups minimise

    ``Σ_t ‖Y_t + Σ_g z_g v_gt - Y*_t‖² + ‖z‖²,   v_gt = Σ_{c∈g} X_tc W_:c,``

the solution of LSMR with damping 1. Its matrix is the sum of ``(XᵀX) ∘ (WᵀW)`` over the columns of
two groups. Dimensions are tuned in the order of the model, each on the tuned ones before it. The
constant that the paper adds to heads is left out.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from icbs.data.pytree import first_argument
from icbs.groups.grouping import GroupSet, State
from icbs.model.gates import WidePart
from icbs.run.context import RunContext

DAMPING = 1.0
LARGEST = 10.0
"""Tuning ends at the first dimension with a larger scale."""
log = logging.getLogger("icbs")


def tune(
    context: RunContext, state: State, milder: State, *, damping: float = DAMPING
) -> dict[str, Tensor]:
    """Tune the scales of kept groups, and multiply the readers' weights by them.

    Parameters
    ----------
    context : RunContext
        Whose masks are those of ``state``.
    state, milder : array of uint8
        Pruned groups of the model, and of the model whose outputs are aimed at.
    damping : float, default 1
        Weight of ``‖z‖²``, squared.

    Returns
    -------
    dict of str to Tensor, shape (groups,)
        Scales by dimension, 0 for pruned groups; without those after a scale above 10.
    """
    grouping = context.grouping
    assert grouping is not None
    grouping.close(milder)
    teacher = copy.deepcopy(context.model)
    grouping.close(state)
    found: dict[str, Tensor] = {}
    for own, span in zip(grouping.sets, grouping.spans, strict=True):
        kept = np.flatnonzero(state[span] == 0)
        if not all(part.columnwise for part in own.parts):
            log.info("%s is not tuned: its groups are not whole inputs", own.name)
            continue
        matrix, right = _normal_equations(context, teacher, own)
        z = np.zeros(own.count)
        damped = matrix[np.ix_(kept, kept)] + damping**2 * np.eye(len(kept))
        z[kept] = scipy.linalg.solve(damped, right[kept], assume_a="pos")
        if np.abs(1 + z[kept]).max(initial=0) > LARGEST:
            log.warning("tuning ends before %s, with a scale above %g", own.name, LARGEST)
            break
        scales = torch.zeros(own.count, dtype=torch.float64)
        scales[torch.from_numpy(kept)] = torch.from_numpy(1 + z[kept])
        _scale(own, scales)
        found[own.name] = scales
    return found


def _scale(own: GroupSet, scales: Tensor) -> None:
    """Multiply the readers' weights by the scales of their groups; pruned ones keep theirs."""
    for part in own.parts:
        columns, gate = part.columns
        dense = part.layer.dense.clone()
        factors = torch.where(scales == 0, torch.ones_like(scales), scales).to(dense)
        dense[:, columns] *= factors[gate]
        part.layer.replace_weights(dense)


def _normal_equations(
    context: RunContext, teacher: nn.Module, own: GroupSet
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the matrix, shape (groups, groups), and the right side of the least squares."""
    matrix = np.zeros((own.count, own.count))
    right = np.zeros(own.count)
    count = min(context.config.curvature_samples, len(context.pool))
    modules = dict(teacher.named_modules())
    device = context.layers[0].dense.device
    for part in own.parts:
        layer = part.layer
        gram: Tensor | float = 0.0
        product: Tensor | float = 0.0
        weight = layer.weight.double()
        for start in range(0, count, context.plan.batch_size):
            piece = context.pool[start : min(count, start + context.plan.batch_size)].to(device)
            with torch.no_grad(), _seen(modules[layer.name]) as aim:
                context.objective.run(teacher, piece.inputs)
            with torch.no_grad(), _seen(layer.module) as now:
                context.objective.run(context.model, piece.inputs)
            size = len(piece)
            x = layer.kind.features(now[0], now[1].shape, size).flatten(0, 1).double()
            rest = layer.kind.positions(aim[1] - now[1], size).flatten(0, 1).double()
            gram = gram + x.T @ x
            product = product + (x * (rest @ weight)).sum(dim=0)
        assert isinstance(gram, Tensor)
        assert isinstance(product, Tensor)
        matrix += _by_group(part, own.count, gram * (weight.T @ weight))
        columns, gate = part.columns
        right += np.bincount(gate.cpu().numpy(), product[columns].cpu().numpy(), own.count)
    return matrix, right


def _by_group(part: WidePart, count: int, values: Tensor) -> np.ndarray[Any, Any]:
    """Sum values of pairs of columns, shape (in, in), over the pairs of their groups."""
    columns, gate = part.columns
    own = values[columns][:, columns]
    rows = own.new_zeros(count, own.shape[1]).index_add_(0, gate, own)
    found: np.ndarray[Any, Any] = (
        rows.new_zeros(count, count).index_add_(1, gate, rows).cpu().numpy()
    )
    return found


@contextmanager
def _seen(module: nn.Module) -> Iterator[list[Tensor]]:
    """Yield the first input and the output of a module's last call."""
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, named: Any, output: Tensor) -> None:
        found[:] = [first_argument(inputs, named), output]

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()
