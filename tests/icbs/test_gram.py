"""The layer's output error as curvature, against the error computed from scratch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from icbs import Pruner, layerwise, make_blocks
from icbs.blocks.block import build_block
from icbs.curvature.layer_error import InputMoments, expand
from icbs.curvature.layer_io import Call
from icbs.curvature.source import QuadraticModel
from icbs.model.gates import Gates, Part
from icbs.model.layer import Layer
from solvers import solve


def setting(seed: int) -> tuple[Layer, torch.Tensor, torch.Tensor]:
    """A layer with a random mask, a block in it, and inputs (positions, in)."""
    generator = torch.Generator().manual_seed(seed)
    layer = Layer.of("layer", nn.Linear(9, 7).double(), 0.5)
    layer.set_mask(torch.rand(layer.size, generator=generator) < 0.5)
    index = torch.randperm(layer.size, generator=generator)[:24]
    mixing = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    inputs = torch.randn(40, 9, generator=generator, dtype=torch.float64) @ mixing
    return layer, index, inputs


def error(layer: Layer, inputs: torch.Tensor) -> float:
    """``½‖(W - W⁰)X‖²/T``."""
    change = layer.module.weight.detach() - layer.dense
    return float((inputs @ change.T).square().sum() / 2 / len(inputs))


def expanded(
    layer: Layer, index: torch.Tensor, inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient and curvature of that error on the weights of a block."""
    return expand(Part(layer, index), (inputs.T @ inputs / len(inputs))[None])


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_it_predicts_the_layers_error_exactly(seed):
    layer, index, inputs = setting(seed)
    gradient, matrix = expanded(layer, index, inputs)
    dense = layer.dense.flatten()[index]
    before, start = error(layer, inputs), layer.pruned[index]
    for pruned in torch.rand(5, 24, generator=torch.Generator().manual_seed(seed)) < 0.5:
        u = pruned.double() - start.double()
        predicted = -(gradient * dense) @ u + u @ matrix @ u / 2
        layer.set_block(index, pruned)
        assert error(layer, inputs) - before == pytest.approx(float(predicted), abs=1e-9)
        layer.set_block(index, start)


def test_weights_of_different_outputs_do_not_interact():
    layer, index, inputs = setting(1)
    _, matrix = expanded(layer, index, inputs)
    rows, _ = layer.unravel(index)
    other = rows[:, None] != rows
    assert (matrix[other] == 0).all()
    assert (matrix[~other] != 0).all()


def test_the_gradient_is_that_of_the_error():
    layer, index, inputs = setting(2)
    weight = layer.module.weight.detach().clone().requires_grad_()
    loss = (inputs @ (weight - layer.dense).T).square().sum() / 2 / len(inputs)
    loss.backward()
    gradient, _ = expanded(layer, index, inputs)
    torch.testing.assert_close(gradient, weight.grad.flatten()[index])


def test_groups_of_a_convolution_have_moments_of_their_own():
    generator = torch.Generator().manual_seed(0)
    layer = Layer.of("layer", nn.Conv2d(4, 6, 3, groups=2).double(), 0.5)
    layer.set_mask(torch.rand(layer.size, generator=generator) < 0.5)
    x = torch.randn(5, 4, 8, 8, generator=generator, dtype=torch.float64)
    call = Call(layer.kind, x, layer.module(x).detach(), len(x))
    moments = InputMoments([layer], None)
    moments.add(layer, call)
    moments.reduce()
    index = torch.randperm(layer.size, generator=generator)[:30]
    gradient, matrix = expand(Part(layer, index), moments.mean(layer))
    dense = layer.dense.flatten()[index]
    start = layer.pruned[index]
    whole = nn.functional.conv2d(x, layer.kind.shaped(layer.dense), groups=2)

    def error() -> float:
        now = nn.functional.conv2d(x, layer.module.weight.detach(), groups=2)
        return float((now - whole).square().sum() / 2 / (5 * 6 * 6))

    before = error()
    for pruned in torch.rand(5, 30, generator=generator) < 0.5:
        u = pruned.double() - start.double()
        predicted = -(gradient * dense) @ u + u @ matrix @ u / 2
        layer.set_block(index, pruned)
        assert error() - before == pytest.approx(float(predicted), abs=1e-9)
        layer.set_block(index, start)


def test_padding_does_not_enter_the_moments():
    layer, _, inputs = setting(3)
    x = inputs[:40].view(4, 10, 9)
    counted = torch.rand(4, 10, generator=torch.Generator().manual_seed(0)) < 0.7
    moments = InputMoments([layer], counted)
    for start in (0, 2):  # two pieces of a batch
        part = x[start : start + 2]
        moments.add(layer, Call(layer.kind, part, torch.zeros(2, 10, 7), 2, start))
    kept = x[counted]
    moments.reduce()
    torch.testing.assert_close(moments.totals["layer"][0], kept.T @ kept)
    assert moments.positions["layer"] == len(kept)
    torch.testing.assert_close(moments.mean(layer)[0], kept.T @ kept / len(kept))


SETTINGS = {
    "density": 0.5,
    "curvature": "gram",
    "gradient_samples": 10_000,
    "curvature_samples": 10_000,
    "acceptance_samples": 1,
}


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("constraint", ["layer", "output", "2:4"])
def test_energy_of_a_block_is_the_change_of_its_layers_error(toy64, after, constraint):
    """Whatever κ, γ and caution are: they are of the loss's model, and this one is exact."""
    changes = {"curvature_weight": 7.0, "paper": {"gradient_weight": 0.3}, "acceptance": "off"}
    blocks = make_blocks(
        toy64.model,
        toy64.batches,
        toy64.loss,
        after=after,
        constraint=constraint,
        block_size=24,
        **SETTINGS,
        **changes,
    )
    # All but one sample, which is held out, drive the pruning; the seed says which.
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    x = toy64.samples[0][order[1:]]
    rng = np.random.default_rng(0)
    block = blocks[0]
    assert block.layer.name == "0"  # whose inputs are the samples
    before = error(block.layer, x)
    for _ in range(5):
        sides = np.zeros_like(block.start)
        for group in range(block.problem.num_groups):
            members = np.flatnonzero(block.problem.groups == group)
            sides[members] = rng.permutation(block.start[members])
        block.layer.set_block(block.index, torch.from_numpy(sides.astype(bool)))
        energy = block.problem.energy(sides)
        assert error(block.layer, x) - before == pytest.approx(energy, abs=1e-8)
        block.layer.set_block(block.index, torch.from_numpy(block.start.astype(bool)))


@pytest.mark.parametrize("initial", ["random", "magnitude", "gradient"])
def test_without_couplings_it_is_wanda(toy64, initial):
    """Wanda² is the diagonal: each output keeps its k best, whatever the start was."""
    blocks = make_blocks(
        toy64.model,
        toy64.batches,
        toy64.loss,
        initial=initial,
        compare="output",
        constraint="output",
        block_size=2 * 320,
        include=["2"],
        **SETTINGS,
    )
    (block,) = blocks
    assert block.problem.n == block.layer.size
    answer = solve(block.problem, "diagonal", about="nothing")
    block.layer.set_block(block.index, torch.from_numpy(answer.x.astype(bool)))
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    x, y = toy64.samples
    expected = layerwise.prune_layerwise(
        toy64.model, [(x[order[1:]], y[order[1:]])], "wanda", density=0.5, include=["2"]
    )
    kept = ~block.layer.pruned.view(block.layer.shape)
    assert torch.equal(kept, expected.masks["2"])


def test_a_run_without_couplings_gives_wandas_mask(toy64):
    """The same from end to end, by settings alone."""
    x, y = toy64.samples
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    rest = [(x[order[1:]], y[order[1:]])]
    wanda = layerwise.prune_layerwise(
        copy.deepcopy(toy64.model), rest, "wanda", density=0.5, include=["2"]
    )
    masks = []
    Pruner(
        initial="random",
        compare="output",
        constraint="output",
        block_size=2 * 320,
        include=["2"],
        solver="diagonal",
        solver_options={"about": "nothing"},
        passes=1,
        acceptance="off",
        **SETTINGS,
    ).prune(
        toy64.model,
        toy64.batches,
        toy64.loss,
        callback=lambda progress: masks.append(progress.model[2].weight != 0),
    )
    start, end = masks
    assert not torch.equal(start, wanda.masks["2"])
    assert torch.equal(end, wanda.masks["2"])


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000), rho=st.sampled_from([0.5, 3.0]), kappa=st.sampled_from([1.0, 4.0])
)
def test_the_sum_adds_the_error_whole_to_the_model_of_the_loss(seed, rho, kappa):
    """κ and γ stay with the loss."""
    layer, index, inputs = setting(seed)
    generator = torch.Generator().manual_seed(seed)
    slope, matrix = expanded(layer, index, inputs)
    factor = torch.randn(11, 24, generator=generator, dtype=torch.float64)
    gradient = torch.randn(7, 9, generator=generator, dtype=torch.float64).flatten()[index]
    models = [
        QuadraticModel(factor=factor, gradients=[gradient]),
        QuadraticModel(matrix=matrix, gradients=[slope], models_loss=False, weight=rho),
    ]
    block = build_block(Gates.single(layer, index), models, gamma=0.75, kappa=kappa)
    assert block.problem.energy(block.start) == pytest.approx(0, abs=1e-8)
    dense = layer.dense.flatten()[index]
    for _ in range(5):
        x = np.random.default_rng(seed).permutation(block.start)
        u = torch.from_numpy(x.astype(float) - block.start)
        loss = -0.75 * (gradient * dense) @ u + kappa * (factor @ u).square().sum() / 2
        error = -(slope * dense) @ u + u @ matrix @ u / 2
        energy = block.problem.energy(x)
        assert energy == pytest.approx(float(loss + rho * error), abs=1e-7)
        assert block.predicted(x, energy) == pytest.approx(float(loss), abs=1e-7)


def test_a_run_on_the_sum_lowers_the_loss(toy):
    changes = SETTINGS | {"curvature": "fisher+gram", "curvature_samples": 100, "density": 0.3}
    result = Pruner(passes=5, block_size=64, **(changes | {"acceptance_samples": 200})).prune(
        toy.model, toy.batches, toy.loss
    )
    assert result.loss < result.initial_loss - 0.02
