"""Blocks of a run of the pruner, with what their coefficients are made of."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from icbs.beginning import begin
from icbs.curvature.collectors import Gathered
from icbs.curvature.gram import Grams
from icbs.curvature.trace import Call
from icbs.layers.layer import Layer
from icbs.layers.modes import evaluation_mode
from icbs.state import State
from icbs.tasks import Task
from icbs.workspace import Workspace

from icbs import Pruner
from icbs.blocks.block import Block
from icbs.curvature.passes import Pass

Float = npt.NDArray[np.float64]


@dataclass
class Parts:
    """A block of the pruner, taken apart; arrays are float64."""

    block: Block
    slope: Float
    """-dE/du at the status quo, shape (n,)."""
    weights: Float
    """Dense weights w⁰, shape (n,)."""
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    """Output and input of each weight, shape (n,)."""
    factor: Float | None = None
    """F with ``½C = FᵀF``, shape (samples, n), of a Fisher."""
    deltas: Float | None = None
    inputs: Float | None = None
    """What F is the product of, shapes (samples, outputs) and (samples, inputs), where a
    sample has one position: ``F = scale · deltas · inputs · weights``."""
    scale: float = 1.0
    moments: Float | None = None
    """½ρH of the layer's inputs, shape (inputs, inputs)."""


@dataclass
class Run:
    """A state that the pruner came to, and the passes that may be taken from there."""

    pruner: Pruner
    work: Workspace
    state: State
    settings: dict[str, Any] = field(default_factory=dict)

    def look(self, names: Sequence[str], **changes: Any) -> dict[str, Parts]:
        """Take one more pass, with other settings; the blocks of some layers by name.

        Nothing is solved, so that the masks stay as they are.
        """
        pruner = Pruner(**self.settings | changes)
        work = replace(self.work, config=pruner.config)
        with recorded() as (calls, moments):
            information = pruner.look(work, self.state, work.layers)
            blocks = pruner.blocks(self.state, work.layers, information)
            kappa = pruner.config.curvature_weight or float(len(work.layers))
            return {
                block.layer.name: take_apart(
                    block,
                    information,
                    kappa * self.state.caution.get(block.layer.name, 1.0),
                    pruner.config.gram_weight,
                    calls[block.layer.name],
                    moments.get(block.layer.name),
                )
                for block in blocks
                if block.layer.name in names
            }


@contextmanager
def running(task: Task, after: int, **settings: Any) -> Iterator[Run]:
    """Prune a copy of a task's model for some passes, as ``icbs.make_blocks`` does."""
    pruner = Pruner(**settings)
    with evaluation_mode(copy.deepcopy(task.model)) as subject:
        work = Workspace.prepare(subject, task.batches, task.loss, pruner.config)
        state = begin(work)
        for number in range(after):
            pruner.step(work, state)
            print(f"  pass {number + 1} of {after}: loss {state.loss:.4f}", flush=True)
        yield Run(pruner, work, state, settings)


@contextmanager
def recorded() -> Iterator[tuple[dict[str, list[Call]], dict[str, torch.Tensor]]]:
    """Keep the calls that give the rows of a Fisher, and the layers' second moments."""
    calls: dict[str, list[Call]] = defaultdict(list)
    moments: dict[str, torch.Tensor] = {}
    add, curvature = Gathered._add, Grams.curvature

    def add_too(self: Gathered, layer: Layer, call: Call, *, row: bool, total: bool) -> None:
        if row and call.kind.pointwise and call.deltas.ndim == 2:
            calls[layer.name].append(call)
        add(self, layer, call, row=row, total=total)

    def curvature_too(self: Grams, layer: Layer, index: torch.Tensor) -> Any:
        moments[layer.name] = self.totals[layer.name] / self.positions[layer.name]
        return curvature(self, layer, index)

    Gathered._add, Grams.curvature = add_too, curvature_too  # type: ignore[method-assign]
    try:
        yield calls, moments
    finally:
        Gathered._add, Grams.curvature = add, curvature  # type: ignore[method-assign]


def take_apart(
    block: Block,
    information: Pass,
    kappa: float,
    rho: float,
    calls: list[Call],
    moments: torch.Tensor | None,
) -> Parts:
    """Take a block apart into what :func:`icbs.blocks.block.build_block` made it of."""
    layer, index = block.layer, block.index
    rows, columns = layer.unravel(index)
    weights = _wide(layer.dense[rows, columns])
    curvature = information.curvature(layer, index)
    slope = np.zeros(len(index))
    parts = Parts(block, slope, weights, rows.numpy(), columns.numpy())
    if curvature.factor is not None:
        slope += _wide(information.gradient(layer, index)) * weights
        half = (kappa / information.dispersion / 2) ** 0.5
        parts.factor = _wide(curvature.factor) * half
        if calls:
            parts.deltas = _wide(torch.cat([call.deltas for call in calls]))
            parts.inputs = _wide(torch.cat([call.inputs for call in calls]))
            parts.scale = half / len(parts.deltas) ** 0.5
    else:
        rho = 1.0
    if curvature.distortion is not None:
        assert moments is not None
        assert len(moments) == 1, "a layer with groups has moments of each"
        slope += rho * _wide(curvature.distortion.gradient) * weights
        parts.moments = rho / 2 * _wide(moments[0])
    check(parts)
    return parts


def check(parts: Parts) -> None:
    """Check that the parts make the block's own energies."""
    rng = np.random.default_rng(0)
    start, problem = parts.block.start.astype(np.float64), parts.block.problem
    for _ in range(5):
        x = rng.integers(0, 2, len(start))
        assert np.isclose(energy(parts, x - start), problem.energy(x), rtol=1e-4, atol=1e-9)
    if parts.deltas is not None and parts.inputs is not None:
        assert parts.factor is not None
        made = parts.deltas[:, parts.rows] * parts.inputs[:, parts.columns] * parts.weights
        assert np.allclose(parts.scale * made, parts.factor, rtol=1e-4, atol=1e-9)


def energy(parts: Parts, u: Float) -> float:
    """Energy of a move u, of parts that are not rounded."""
    total = -parts.slope @ u
    if parts.factor is not None:
        total += float(np.square(parts.factor @ u).sum())
    if parts.moments is not None:
        for row in np.unique(parts.rows):
            own = parts.rows == row
            moved = np.bincount(
                parts.columns[own],
                weights=parts.weights[own] * u[own],
                minlength=len(parts.moments),
            )
            total += moved @ parts.moments @ moved
    return float(total)


def _wide(tensor: torch.Tensor) -> Float:
    return tensor.double().cpu().numpy()
