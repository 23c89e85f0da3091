"""Gradients and curvature against torch.func, autograd and finite differences in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from icbs import Pruner
from icbs.config import PrunerConfig
from icbs.curvature.fisher import Fisher
from icbs.curvature.hessian import Hessian
from icbs.curvature.layer_io import Trace
from icbs.curvature.passes import Pass
from icbs.curvature.source import CurvatureSource
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from tests.icbs import passes
from tests.icbs.passes import empirical, factor_of, matrix_of


def look(
    model: nn.Module,
    layers: list[Layer],
    samples: Samples,
    source: CurvatureSource | None = None,
    **changes: object,
) -> Pass:
    """By default with the gradients of all samples as rows."""
    source = source or empirical(len(samples))
    return passes.look(model, layers, Objective(nn.CrossEntropyLoss()), samples, source, **changes)


def per_sample_gradients(model: nn.Module, samples: Samples) -> dict[str, torch.Tensor]:
    """The oracle: one gradient a sample, through torch.func."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(p: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs = functional_call(model, p, (x[None],))
        return nn.functional.cross_entropy(outputs, y[None])

    return vmap(grad(loss), in_dims=(None, 0, 0))(parameters, samples.inputs, samples.targets)


def test_gradients_and_columns_match_torch_func(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    samples = Samples(*toy64.samples)[:150]
    expected = per_sample_gradients(toy64.model, samples)
    pass_info = look(toy64.model, layers, samples)
    for layer in layers:
        each = expected[f"{layer.name}.weight"]
        torch.testing.assert_close(pass_info.gradients[layer.name], each.mean(dim=0))
        index = torch.randperm(layer.size)[:30]
        factor = factor_of(pass_info, layer, index)
        gates = each.flatten(1)[:, index] * layer.dense.flatten()[index]
        torch.testing.assert_close(factor.T @ factor, gates.T @ gates / len(samples))


def test_gradients_are_taken_at_the_pruned_weights(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    samples = Samples(*toy64.samples)[:50]
    for layer in layers:
        layer.set_mask(torch.rand(layer.size) < 0.7)
    expected = per_sample_gradients(toy64.model, samples)
    pass_info = look(toy64.model, layers, samples)
    for layer in layers:
        mean = expected[f"{layer.name}.weight"].mean(dim=0)
        torch.testing.assert_close(pass_info.gradients[layer.name], mean)


def test_a_frozen_model_gives_the_same_gradients(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    samples = Samples(*toy64.samples)[:40]
    expected = look(toy64.model, layers, samples).gradients
    toy64.model.requires_grad_(False)
    found = look(toy64.model, layers, samples).gradients
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_pieces_of_a_batch_add_up(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    samples = Samples(*toy64.samples)[:97]
    whole = look(toy64.model, layers, samples, empirical(33), batch_size=1000)
    pieces = look(toy64.model, layers, samples, empirical(33), batch_size=10)
    index = torch.arange(40)
    for layer in layers:
        torch.testing.assert_close(pieces.gradients[layer.name], whole.gradients[layer.name])
        torch.testing.assert_close(pieces.squares[layer.name], whole.squares[layer.name])
        a, b = (factor_of(p, layer, index) for p in (whole, pieces))
        assert a.shape == b.shape == (33, 40)
        torch.testing.assert_close(a, b)
    assert pieces.loss == pytest.approx(whole.loss)


def test_sequences_sum_over_their_positions():
    generator = torch.Generator().manual_seed(1)
    trace = Trace(
        torch.randn(5, 7, 3, generator=generator, dtype=torch.float64),
        torch.randn(5, 7, 4, generator=generator, dtype=torch.float64),
    )
    full = torch.einsum("sti,stj->sij", trace.deltas, trace.inputs)
    rows, columns = torch.tensor([0, 3, 2, 3]), torch.tensor([2, 0, 1, 2])
    torch.testing.assert_close(trace.columns(rows, columns), full[:, rows, columns])
    torch.testing.assert_close(trace.gradient_sum(), full.sum(dim=0))


def test_exact_curvature_matches_finite_differences(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    samples = Samples(*toy64.samples)[:80]
    layer = layers[1]
    layer.set_mask(torch.rand(layer.size, generator=torch.Generator().manual_seed(2)) < 0.5)
    index = torch.randperm(layer.size, generator=torch.Generator().manual_seed(3))[:6]
    found = matrix_of(look(toy64.model, layers, samples, Hessian(80)), layer, index)
    rows, columns = layer.unravel(index)
    dense, weight = layer.dense[rows, columns], layer.module.weight
    at = weight.detach()[rows, columns].clone()

    @torch.no_grad()
    def loss(gates: torch.Tensor) -> float:
        weight[rows, columns] = at + gates * dense
        value = nn.functional.cross_entropy(toy64.model(samples.inputs), samples.targets)
        weight[rows, columns] = at
        return float(value)

    h = 1e-3
    unit = torch.eye(6, dtype=torch.float64) * h
    for i in range(6):
        for j in range(6):
            corners = [loss(s * unit[i] + t * unit[j]) * s * t for s in (1, -1) for t in (1, -1)]
            assert float(found[i, j]) == pytest.approx(sum(corners) / (4 * h * h), abs=2e-5)


def test_monte_carlo_fisher_converges_to_the_hessian_of_the_last_layer(toy64):
    """For a linear last layer under cross-entropy, Fisher and Hessian are the same."""
    layers = find_layers(toy64.model, PrunerConfig())
    x, y = toy64.samples
    once = Samples(x[:50], y[:50])
    many = Samples(x[:50].repeat(1000, 1), y[:50].repeat(1000))
    index = torch.arange(layers[2].size)
    exact = matrix_of(look(toy64.model, layers, once, Hessian(50)), layers[2], index)
    drawn = look(toy64.model, layers, many, Fisher(50_000), batch_size=50_000)
    factor = factor_of(drawn, layers[2], index)
    distance = torch.linalg.norm(factor.T @ factor - exact) / torch.linalg.norm(exact)
    assert distance < 0.05
    # The data's own labels do not give it: the model is too sure of them or not enough.
    labels = factor_of(look(toy64.model, layers, once), layers[2], index)
    assert torch.linalg.norm(labels.T @ labels - exact) / torch.linalg.norm(exact) > 0.1


def test_mean_gradients_use_the_data_labels_whatever_the_curvature(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    samples = Samples(*toy64.samples)[:60]
    expected = look(toy64.model, layers, samples).gradients
    found = look(toy64.model, layers, samples, Fisher(60)).gradients
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_layer_that_did_not_run_is_named(toy64):
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(12, 4), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(DataError, match="'idle' did not run in the forward pass of any of 600"):
        Pruner(density=0.5).prune(Partly().double(), toy64.batches, toy64.loss)


def test_layer_that_runs_twice_sums_its_calls():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.inner(self.inner(x).tanh()))

    torch.manual_seed(0)
    model = Twice().double()
    samples = Samples(torch.randn(20, 5, dtype=torch.float64), torch.randint(3, (20,)))
    layers = find_layers(model, PrunerConfig(density=0.5))
    expected = per_sample_gradients(model, samples)
    pass_info = look(model, layers, samples)
    for layer in layers:
        each = expected[f"{layer.name}.weight"].flatten(1) * layer.dense.flatten()
        factor = factor_of(pass_info, layer, torch.arange(layer.size))
        torch.testing.assert_close(factor.T @ factor, each.T @ each / 20)
