"""Moves of gates of several weights and layers: measured as from scratch, kept or undone whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from icbs import Pruner
from icbs.blocks.block import Block, build_block
from icbs.blocks.solving import solve_blocks
from icbs.model.gates import Gates, Part
from icbs.run.context import RunContext
from icbs.run.start import start_run
from icbs.run.state import RunState
from solvers import Solution
from tests.icbs.conftest import Toy

SETTINGS = {
    "density": 0.5,
    "block_size": 32,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
    "initial": "random",
    "solver": "exhaustive",
}
LAYERS = ["0", "2", "4"]


def neurons(context: RunContext) -> Gates:
    """Outputs of the first layer, each with what reads it in the second."""
    first, second, _ = context.layers
    rows = torch.arange(first.size).view(first.shape)[:8]
    columns = torch.arange(second.size).view(second.shape)[:, :8]
    of_first = torch.arange(8)[:, None].expand_as(rows)
    of_second = torch.arange(8).expand_as(columns)
    parts = [
        Part(second, columns.flatten(), of_second.flatten()),
        Part(first, rows.flatten(), of_first.flatten()),
    ]
    return Gates(parts, 8)


def of_all_layers(context: RunContext) -> Gates:
    """A few weights of each layer, the last layer first."""
    picks = [torch.arange(3, 40, 7), torch.arange(0, 60, 17), torch.arange(9, 64, 15)]
    pairs = list(zip(context.layers, picks, strict=True))
    return Gates.joined([Gates.single(layer, index) for layer, index in reversed(pairs)])


def two_of_a_layer(context: RunContext) -> Gates:
    """Weights and sets of one layer."""
    layer = context.layers[1]
    sets = [torch.arange(3 * i, 3 * i + 3) for i in range(4)]
    return Gates.joined([Gates.of_sets(layer, sets), Gates.single(layer, torch.arange(50, 56))])


WAYS = {"neurons": neurons, "all layers": of_all_layers, "two of a layer": two_of_a_layer}


def begin(toy: Toy, way: str, **changes: Any) -> tuple[Pruner, RunContext, RunState, Block]:
    """A run whose first pass has one block."""
    pruner = Pruner(**(SETTINGS | changes))
    context = RunContext.prepare(toy.model, toy.batches, toy.loss, pruner.config)
    state = start_run(context)
    gates = WAYS[way](context)
    closed = torch.arange(len(gates)) % 2 == 0  # none in part
    for part in gates.parts:
        part.layer.set_block(part.index, part.of(closed))
    state.loss = context.holdout.measure()
    found = context.take_pass(state.generator, 0, lambda _: {"block": gates})
    return pruner, context, state, build_block(gates, found.models(gates))


def judged(pruner: Pruner, context: RunContext, state: RunState, block: Block) -> Solution:
    """The answer of the solver, after it was judged."""
    (answer,) = solve_blocks([block], pruner.solver, pruner.config, 0)
    assert isinstance(answer, Solution)
    assert answer.x is not None
    state.history += state.acceptance.judge(context, state, [block], [answer])
    return answer


def copies(context: RunContext) -> list[Tensor]:
    masks = [layer.pruned.clone() for layer in context.layers]
    return masks + [layer.weight.clone() for layer in context.layers]


def scratch(context: RunContext, toy: Toy) -> float:
    """The held-out loss of the model as it stands."""
    held = [piece.samples for piece in context.holdout.pieces]
    inputs, targets = (torch.cat([getattr(p, n) for p in held]) for n in ("inputs", "targets"))
    with torch.no_grad():
        return float(toy.loss(toy.model(inputs), targets))


@pytest.mark.parametrize("unit", ["block", "pass"])
@pytest.mark.parametrize("way", WAYS)
def test_a_move_that_helps_is_made_whole_and_measured_as_from_scratch(toy64, way, unit):
    pruner, context, state, block = begin(toy64, way, acceptance_unit=unit)
    before, loss = copies(context), state.loss
    answer = judged(pruner, context, state, block)
    (row,) = state.history
    assert row.accepted
    assert (row.n, row.k) == (len(block.gates), block.start.sum())
    assert row.moved == (answer.x != block.start).sum() > 0
    assert set(row.layer.split(" + ")) == {part.layer.name for part in block.gates.parts}
    assert row.predicted == pytest.approx(answer.energy)
    assert state.loss == pytest.approx(scratch(context, toy64), rel=1e-12)
    assert row.actual == pytest.approx(state.loss - loss)
    assert (block.gates.closed() == answer.x).all()
    # Nothing else has moved, and weights follow from masks.
    touched = {layer.name: torch.zeros_like(layer.pruned) for layer in context.layers}
    for part in block.gates.parts:
        touched[part.layer.name][part.index] = True
    for layer, was in zip(context.layers, before[:3], strict=True):
        assert torch.equal(layer.pruned[~touched[layer.name]], was[~touched[layer.name]])
        assert torch.equal(
            layer.weight, torch.where(layer.pruned.view(layer.shape), 0, layer.dense)
        )
    assert state.best_loss == state.loss
    assert all(torch.equal(state.best.pruned[x.name], x.pruned) for x in context.layers)


@pytest.mark.parametrize("unit", ["block", "pass"])
@pytest.mark.parametrize("way", WAYS)
def test_a_move_that_hurts_is_undone_whole(toy64, way, unit):
    pruner, context, state, block = begin(toy64, way, acceptance_unit=unit)
    before, loss = copies(context), state.loss
    state.loss = -1e9
    judged(pruner, context, state, block)
    (row,) = state.history
    assert row.moved
    assert not row.accepted
    assert all(torch.equal(a, b) for a, b in zip(copies(context), before, strict=True))
    assert scratch(context, toy64) == pytest.approx(loss, rel=1e-12)
    damping = state.acceptance.damping.by_layer
    assert damping.keys() == {part.layer.name for part in block.gates.parts}
    assert all(factor > 1 for factor in damping.values())


@pytest.mark.parametrize("way", WAYS)
def test_what_is_remembered_after_a_move_serves_the_next(toy64, way):
    pruner, context, state, block = begin(toy64, way)
    judged(pruner, context, state, block)
    assert context.holdout.remember
    for name in reversed(LAYERS):
        layer = next(layer for layer in context.layers if layer.name == name)
        index = torch.arange(5)
        before = layer.weight[layer.unravel(index)].clone()
        layer.set_block(index, ~layer.pruned[index])
        change = layer.weight[layer.unravel(index)] - before
        found = context.holdout.trial([(layer, index, change)])
        assert found == pytest.approx(scratch(context, toy64), rel=1e-12)
        context.holdout.commit()


@pytest.mark.parametrize("way", WAYS)
def test_all_weights_of_a_block_go_on_the_tabu_lists_of_their_layers(toy, way):
    _, _, state, block = begin(toy, way)
    expected = {name: torch.zeros_like(tabu.free) for name, tabu in state.tabus.items()}
    for part in block.gates.parts:
        expected[part.layer.name][part.index] = True
    for tabu in state.tabus.values():
        tabu.length = len(tabu.stamp)
    state.finish_pass({"block": block.gates})
    assert state.step == 1
    assert all(torch.equal(state.tabus[name].active(), on) for name, on in expected.items())
