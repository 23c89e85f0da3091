"""Scales of the kept groups by least squares towards a milder pruned model (Kwon et al. 2022).

For a reader with weights W, inputs X of the pruned model, and outputs Y of the pruned and Y* of
the milder model, each with the residual that is added to it, the scales 1 + z of the groups
minimise

    ``Σ_t ‖Y_t + Σ_g z_g v_gt - Y*_t‖² + ‖z‖²,   v_gt = Σ_{c∈g} X_tc W_:c,``

over positions t without padding: the solution of LSMR with damping 1. Its matrix is the sum of
``(XᵀX) ∘ (WᵀW)`` over the columns of two groups. Dimensions are tuned in the order of the model,
each on the tuned ones before it. The constant that the paper adds to heads is left out.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from icbs.data.positions import counted_positions
from icbs.data.pytree import first_argument
from icbs.data.samples import Samples
from icbs.groups.grouping import GroupSet, State
from icbs.groups.residuals import residual_inputs
from icbs.layerwise.chain import StopForward
from icbs.model.gates import WidePart
from icbs.model.hooks import watch_calls
from icbs.run.context import RunContext

DAMPING = 1.0
LARGEST = 10.0
"""Tuning ends at the first dimension with a larger scale."""
HELD = 1 << 30
"""Bytes of the milder model's outputs that are held; above, it is run again for each reader."""
Seen = dict[str, tuple[Tensor, Tensor]]
"""Module → its first input and its output."""
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
    grouping.close(np.zeros(grouping.count, dtype=np.uint8))
    residuals = residual_inputs(
        context.model,
        context.pool[:2].to(context.layers[0].dense.device).inputs,
        {
            part.layer.name: []
            if own.dimension is None
            else [w.module for w in own.dimension.writers]
            for own in grouping.sets
            for part in own.parts
        },
    )
    grouping.close(milder)
    readers = [part.layer.name for own in grouping.sets for part in own.parts]
    teacher = _Teacher(context, copy.deepcopy(context.model), readers, residuals)
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
    context: RunContext, teacher: _Teacher, own: GroupSet
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the matrix, shape (groups, groups), and the right side of the least squares."""
    matrix = np.zeros((own.count, own.count))
    right = np.zeros(own.count)
    for part in own.parts:
        layer = part.layer
        gram: Tensor | float = 0.0
        product: Tensor | float = 0.0
        weight = layer.weight.double()
        for number, piece in enumerate(teacher.pieces()):
            aim = teacher.output(layer.name, number, piece)
            watched = teacher.watched(context.model, [layer.name])
            with torch.no_grad(), _seen(watched, last=layer.name) as seen:
                context.objective.run(context.model, piece.inputs)
            inputs, output = seen[layer.name][0], teacher.total(seen, layer.name)
            size = len(piece)
            x = layer.kind.features(inputs, output.shape, size)
            rest = layer.kind.positions(aim - output, size)
            counted = counted_positions(piece)
            if counted is None or counted.shape != x.shape[:2]:
                counted = x.new_ones(x.shape[:2], dtype=torch.bool)
            x, rest = x[counted].double(), rest[counted].double()
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


class _Teacher:
    """Outputs of the readers of a model, from one pass if they take at most :data:`HELD` bytes.

    Outputs are those with the residual, for readers that have one.
    """

    def __init__(
        self,
        context: RunContext,
        model: nn.Module,
        readers: Sequence[str],
        residuals: Mapping[str, str],
    ) -> None:
        self.context, self.model, self.residuals = context, model, residuals
        self.readers = list(dict.fromkeys(readers))
        self.count = min(context.config.curvature_samples, len(context.pool))
        self.outputs: dict[tuple[str, int], Tensor] = {}
        self.fits = True

    def pieces(self) -> Iterator[Samples]:
        """Yield the samples of the tuning, as many at a time as one forward pass takes."""
        context, size = self.context, self.context.plan.batch_size
        device = context.layers[0].dense.device
        for start in range(0, self.count, size):
            yield context.pool[start : min(self.count, start + size)].to(device)

    def watched(self, model: nn.Module, readers: Sequence[str]) -> dict[str, nn.Module]:
        """Return the modules of a model that give the outputs of some readers."""
        names = [*readers, *(self.residuals[name] for name in readers if name in self.residuals)]
        return {name: model.get_submodule(name) for name in dict.fromkeys(names)}

    def total(self, seen: Seen, name: str) -> Tensor:
        """Return the output of a reader with its residual."""
        output = seen[name][1]
        return output + seen[self.residuals[name]][0] if name in self.residuals else output

    def output(self, name: str, number: int, piece: Samples) -> Tensor:
        """Return the output of a reader for a piece of the samples, once."""
        if (name, number) not in self.outputs:
            wanted = self.readers if self.fits else [name]
            last = None if self.fits else name
            watched = self.watched(self.model, wanted)
            with torch.no_grad(), _seen(watched, last=last) as seen:
                self.context.objective.run(self.model, piece.inputs)
            found = {own: self.total(seen, own) for own in wanted}
            total = sum(output.nbytes for output in found.values())
            self.fits = total * self.count <= HELD * len(piece)
            kept = found if self.fits else {name: found[name]}
            self.outputs |= {(own, number): output for own, output in kept.items()}
        return self.outputs.pop((name, number))


@contextmanager
def _seen(modules: Mapping[str, nn.Module], *, last: str | None) -> Iterator[Seen]:
    """Yield the first input and the output of modules; the pass ends after the ``last`` one."""
    found: Seen = {}

    def after(name: str, args: Any, named: Any, output: Tensor) -> None:
        # Copies, as the rest of the pass may change them in place.
        found[name] = first_argument(args, named).clone(), output.clone()
        if name == last:
            raise StopForward

    with suppress(StopForward), watch_calls(modules, after=after):
        yield found
