"""The block problem against the quadratic written out from its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import make_blocks
from icbs.blocks.block import build_block
from icbs.config.constraints import group_of
from icbs.curvature.source import QuadraticModel
from icbs.model.gates import Gates
from icbs.model.layer import Layer


def setting(seed: int, *, exact: bool) -> tuple[Gates, QuadraticModel, torch.Tensor]:
    """A block of a layer with a random mask, a random model of it, and its curvature."""
    generator = torch.Generator().manual_seed(seed)
    module = torch.nn.Linear(9, 7).double()
    layer = Layer.of("layer", module, 0.5)
    layer.set_mask(torch.rand(layer.size, generator=generator) < 0.5)
    index = torch.randperm(layer.size, generator=generator)[:24]
    gradient = torch.randn(7, 9, generator=generator, dtype=torch.float64).flatten()[index]
    factor = torch.randn(11, 24, generator=generator, dtype=torch.float64)
    C = factor.T @ factor
    model = QuadraticModel(matrix=C) if exact else QuadraticModel(factor=factor)
    model.gradients = [gradient]
    return Gates.single(layer, index), model, C


def gate_gradient(gates: Gates, model: QuadraticModel) -> np.ndarray:
    """Derivatives of the modelled loss with respect to the gates."""
    (gradient,), (part,) = model.gradients, gates.parts
    return (gradient * part.layer.dense.flatten()[part.index]).numpy()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    exact=st.booleans(),
    gamma=st.sampled_from([0.0, 0.75, 1.0]),
    ridge=st.sampled_from([0.0, 1e-3, 10.0]),
    kappa=st.sampled_from([1.0, 3.0]),
)
def test_energy_is_the_quadratic_model_of_the_move(seed, exact, gamma, ridge, kappa):
    gates, quadratic, C = setting(seed, exact=exact)
    block = build_block(gates, [quadratic], gamma=gamma, kappa=kappa, ridge=ridge)
    assert block.problem.energy(block.start) == pytest.approx(0.0, abs=1e-9)
    assert block.problem.k == block.start.sum()

    dense = block.layer.dense.flatten()[block.index].numpy()
    gate = gate_gradient(gates, quadratic)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        x = rng.permutation(block.start)
        u = x.astype(float) - block.start
        model = -gamma * gate @ u + 0.5 * kappa * u @ C.numpy() @ u
        penalty = ridge * (dense**2) @ u**2
        energy = block.problem.energy(x)
        assert energy == pytest.approx(model + penalty, abs=1e-8)
        assert block.predicted(x, energy) == pytest.approx(model, abs=1e-8)


@pytest.mark.parametrize("modelled", [True, False])
def test_what_is_predicted_is_the_change_of_the_loss_not_of_the_layers_own_error(modelled):
    gates, quadratic, C = setting(0, exact=True)
    rng = np.random.default_rng(0)
    half = torch.from_numpy(rng.standard_normal((24, 24)))
    rho = 3.0 if modelled else 1.0
    own = QuadraticModel(
        matrix=half @ half.T,
        gradients=[torch.from_numpy(rng.standard_normal(24))],
        models_loss=False,
        weight=rho,
    )
    models = [quadratic, own] if modelled else [own]
    block = build_block(gates, models, kappa=2.0, ridge=0.5)
    x = rng.permutation(block.start)
    u = x.astype(float) - block.start
    dense = block.layer.dense.flatten()[block.index].numpy()
    error = -gate_gradient(gates, own) @ u + 0.5 * u @ own.matrix.numpy() @ u
    loss = -gate_gradient(gates, quadratic) @ u + u @ C.numpy() @ u
    penalty = 0.5 * dense**2 @ u**2
    energy = block.problem.energy(x)
    assert energy == pytest.approx((loss + rho * error if modelled else error) + penalty)
    assert block.predicted(x, energy) == pytest.approx(loss if modelled else error)


def test_a_factor_of_something_else_than_the_loss_is_not_predicted_either():
    gates, quadratic, C = setting(0, exact=True)
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((5, 24))
    other = QuadraticModel(factor=torch.from_numpy(factor), models_loss=False, weight=3.0)
    for first in (quadratic, setting(0, exact=False)[1]):
        block = build_block(gates, [first, other], kappa=2.0)
        x = rng.permutation(block.start)
        u = x.astype(float) - block.start
        loss = -gate_gradient(gates, quadratic) @ u + u @ C.numpy() @ u
        energy = block.problem.energy(x)
        assert energy == pytest.approx(loss + 1.5 * ((factor @ u) ** 2).sum())
        assert block.predicted(x, energy) == pytest.approx(loss)


def test_first_order_term_predicts_the_change_of_a_linear_loss():
    """Pruning takes a gate from 1 to 0, so the loss falls where w·g is positive."""
    gates, quadratic, _ = setting(0, exact=True)
    quadratic.matrix = torch.zeros(24, 24, dtype=torch.float64)
    block = build_block(gates, [quadratic])
    layer, index = block.layer, block.index
    before = layer.module.weight.detach().clone()
    x = np.random.default_rng(1).permutation(block.start)
    layer.set_block(index, torch.from_numpy(x.astype(bool)))
    change = quadratic.gradients[0] @ (layer.module.weight.detach() - before).flatten()[index]
    assert block.problem.energy(x) == pytest.approx(float(change))


@pytest.mark.parametrize("scope", ["output", "input"])
def test_each_line_keeps_its_own_count(scope):
    gates, quadratic, _ = setting(3, exact=False)
    (layer,), index = gates.layers, gates.parts[0].index
    gates = Gates.single(layer, index, group_of(index, layer.shape[1], scope))
    problem = build_block(gates, [quadratic]).problem
    rows, columns = layer.unravel(index)
    lines = rows if scope == "output" else columns
    assert problem.num_groups == len(lines.unique())
    for line in lines.unique():
        members = lines == line
        group = int(problem.groups[members.numpy()][0])
        assert (problem.groups[members.numpy()] == group).all()
        assert problem.cardinalities[group] == int(layer.pruned[index][members].sum())


def test_signs_are_kept():
    """Half the couplings of a random factor are negative; none may be cut."""
    gates, quadratic, C = setting(5, exact=False)
    Q = build_block(gates, [quadratic]).problem.Q
    off = ~np.eye(24, dtype=bool)
    assert (Q[off] < 0).sum() == int((C.numpy()[off] < 0).sum()) > 100
    assert (np.diag(Q) < 0).any()


def test_blocks_for_whoever_studies_solvers(toy):
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    settings = {"density": 0.3, "block_size": 24, "gradient_samples": 100}
    first = make_blocks(toy.model, toy.batches, toy.loss, **settings)
    later = make_blocks(toy.model, toy.batches, toy.loss, after=3, **settings)
    assert [block.layer.name for block in first] == ["0", "2", "4"]
    for block in [*first, *later]:
        assert block.problem.energy(block.start) == pytest.approx(0.0, abs=1e-7)
    assert any(a.problem.hash != b.problem.hash for a, b in zip(first, later, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in toy.model.state_dict().items())
