"""Blocks of a run of the pruner, with what their coefficients are made of."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from icbs import Pruner
from icbs.blocks.block import Block
from icbs.curvature.fisher import _Gathered
from icbs.curvature.layer_error import InputMoments
from icbs.curvature.layer_io import Call
from icbs.curvature.named import make_source
from icbs.curvature.source import QuadraticModel
from icbs.model.layer import Layer
from icbs.model.modes import evaluation_mode
from icbs.run.context import RunContext
from icbs.run.start import start_run
from icbs.run.state import RunState
from icbs.zoo import Task
from scripts.library.parts import Float, Parts, check


@dataclass
class Moment:
    """A state that the pruner came to, from which passes may be taken."""

    context: RunContext
    state: RunState
    settings: dict[str, Any]

    def look(self, names: Sequence[str], **changes: Any) -> dict[str, Parts]:
        """Take the next pass, with other settings; the blocks of some layers by name.

        Nothing is solved, and the state stays as it is: passes don't depend on one another.
        """
        pruner = Pruner(**self.settings | changes)
        source = make_source(pruner.config)
        context = replace(self.context, config=pruner.config, source=source)
        state = copy.copy(self.state)
        state.generator = torch.Generator()
        state.generator.set_state(self.state.generator.get_state())
        with recorded() as (calls, moments):
            pass_info = pruner.look(context, state, context.layers)
            found = {}
            for block in pruner.build(context, state, pass_info):
                if (name := block.layer.name) in names:
                    kappa = pruner.config.curvature_weight or float(len(pass_info.blocks))
                    kappa *= state.acceptance.damping.of([name])
                    models = pass_info.models(block.gates)
                    found[name] = take_apart(block, models, kappa, calls[name], moments.get(name))
        return found


@contextmanager
def pruned(task: Task, after: int, **settings: Any) -> Iterator[Moment]:
    """Prune a copy of a task's model for some passes, as ``icbs.make_blocks`` does."""
    pruner = Pruner(**settings)
    with evaluation_mode(copy.deepcopy(task.model)) as subject:
        context = RunContext.prepare(subject, task.batches, task.loss, pruner.config)
        state = start_run(context)
        for number in range(after):
            pruner.step(context, state)
            print(f"  pass {number + 1} of {after}: loss {state.loss:.4f}", flush=True)
        yield Moment(context, state, settings)


@contextmanager
def recorded() -> Iterator[tuple[dict[str, list[Call]], dict[str, torch.Tensor]]]:
    """Keep the calls that give the rows of a Fisher, and the layers' second moments."""
    calls: dict[str, list[Call]] = defaultdict(list)
    moments: dict[str, torch.Tensor] = {}
    add, mean = _Gathered.add, InputMoments.mean

    def add_too(self: _Gathered, layer: Layer, call: Call) -> None:
        if call.kind.pointwise and call.deltas.ndim == 2:
            calls[layer.name].append(call)
        add(self, layer, call)

    def mean_too(self: InputMoments, layer: Layer) -> torch.Tensor:
        moments[layer.name] = mean(self, layer)
        return moments[layer.name]

    _Gathered.add, InputMoments.mean = add_too, mean_too  # type: ignore[method-assign]
    try:
        yield calls, moments
    finally:
        _Gathered.add, InputMoments.mean = add, mean  # type: ignore[method-assign]


def take_apart(
    block: Block,
    models: Sequence[QuadraticModel],
    kappa: float,
    calls: list[Call],
    moments: torch.Tensor | None,
) -> Parts:
    """Take a block apart into what :func:`icbs.blocks.block.build_block` made it of."""
    (part,) = block.gates.parts
    rows, columns = part.places
    weights = _wide(part.weights)
    parts = Parts(
        problem=block.problem,
        start=block.start,
        slope=np.zeros(len(weights)),
        weights=weights,
        rows=rows.numpy(),
        columns=columns.numpy(),
    )
    for model in models:
        assert model.gradients is not None
        parts.slope += model.weight * _wide(model.gradients[0]) * weights
        if model.models_loss:
            assert model.factor is not None
            half = (kappa * model.weight / model.dispersion / 2) ** 0.5
            parts.factor = _wide(model.factor) * half
            if calls:
                parts.deltas = _wide(torch.cat([call.deltas for call in calls]))
                parts.inputs = _wide(torch.cat([call.inputs for call in calls]))
                parts.scale = half / len(parts.deltas) ** 0.5
        else:
            assert moments is not None
            assert len(moments) == 1, "a layer with groups has moments of each"
            parts.moments = model.weight / 2 * _wide(moments[0])
    check(parts)
    return parts


def _wide(tensor: torch.Tensor) -> Float:
    return tensor.double().cpu().numpy()
