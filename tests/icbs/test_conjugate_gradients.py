"""Least squares on a support: conjugate gradients against Cholesky factors and lstsq."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from icbs.layerwise.conjugate_gradients import solve_exactly, solve_on_support
from icbs.model.layer import Layer
from icbs.recovery.moments import InputMoments, LayerMoments


def problem(seed: int, groups: int, outputs: int, width: int, rows: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, rows, width, generator=generator, dtype=torch.float64)
    hessian = x.mT @ x
    # Not in the range of X alone: as in a ridge that pulls to other weights.
    sides = torch.randn(groups, outputs, width, generator=generator, dtype=torch.float64)
    kept = torch.rand(groups, outputs, width, generator=generator) < 0.6
    start = torch.randn(groups, outputs, width, generator=generator, dtype=torch.float64)
    return hessian, sides, kept, start


@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 3),
    outputs=st.integers(1, 5),
    width=st.integers(1, 9),
)
def test_conjugate_gradients_reach_the_exact_minimum(seed, groups, outputs, width):
    hessian, sides, kept, start = problem(seed, groups, outputs, width, rows=2 * width + 3)
    hessian += 0.1 * torch.eye(width, dtype=torch.float64)
    found = solve_on_support(hessian, sides, kept, start, iterations=8 * width + 8, tolerance=1e-12)
    exact = solve_exactly(hessian, sides, kept, start)
    torch.testing.assert_close(found, exact, atol=1e-7, rtol=1e-6)
    assert not found[~kept].any()
    gradient = (found @ hessian - sides)[kept]
    assert gradient.abs().max() < 1e-6 if len(gradient) else True


@given(seed=st.integers(0, 10**6), iterations=st.integers(1, 4), rows=st.integers(1, 12))
def test_no_output_gets_worse_however_few_the_iterations_or_samples(seed, iterations, rows):
    """Rank-deficient H too."""
    hessian, sides, kept, start = problem(seed, 1, 4, 7, rows)
    hessian[:, 2] = hessian[:, :, 2] = 0  # an input that is always 0
    sides[:, :, 2] = 0
    found = solve_on_support(hessian, sides, kept, start, iterations=iterations)

    def objective(weight: Tensor) -> Tensor:
        return ((0.5 * weight @ hessian - sides) * weight).sum(dim=2)

    assert torch.isfinite(found).all()
    assert (objective(found) <= objective(torch.where(kept, start, 0)) + 1e-12).all()
    assert torch.equal(found[:, :, 2], torch.where(kept, start, 0)[:, :, 2])


def test_one_step_length_for_all_outputs_would_be_wrong():
    """Outputs of very different scales converge at their own pace."""
    hessian, sides, kept, start = problem(3, 1, 6, 8, rows=20)
    scale = torch.logspace(-6, 6, 6, dtype=torch.float64)[None, :, None]
    sides = sides * scale
    found = solve_on_support(hessian, sides, kept, 0 * start, iterations=60, tolerance=1e-13)
    exact = solve_exactly(hessian, sides, kept, start)
    torch.testing.assert_close(found / scale, exact / scale, atol=1e-8, rtol=1e-6)


def layer_with(groups: int, width: int, outputs: int, *, bias: bool) -> Layer:
    torch.manual_seed(groups)
    module: nn.Module
    if groups == 1:
        module = nn.Linear(width, outputs, bias=bias)
    else:
        module = nn.Conv2d(groups * width, groups * outputs, 1, groups=groups, bias=bias)
    return Layer.of("layer", module.double(), 0.5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_the_normal_equations_are_those_of_an_explicit_design(groups, bias, ridge):
    """A constant column without ridge gives the bias; positions come in two parts."""
    width, outputs, rows = 4, 3, 40
    layer = layer_with(groups, width, outputs, bias=bias)
    generator = torch.Generator().manual_seed(0)

    def inputs() -> Tensor:
        return 3 + torch.randn(rows, groups * width, generator=generator, dtype=torch.float64)

    x, y = inputs(), inputs()
    shared = InputMoments(groups, width, shifted=bias, like=torch.zeros((), dtype=torch.float64))
    dense_bias = layer.kind.module.bias if bias else None
    moments = LayerMoments.of(layer, shared, dense_bias)
    for part in (slice(0, 15), slice(15, rows)):
        shared.add(x[part], y[part])
        moments.add_outputs(y[part])
    hessian, sides = moments.equations().ridged(ridge)
    kept = torch.rand(groups, outputs, width, generator=generator) < 0.7
    weight = solve_exactly(hessian, sides, kept, torch.zeros_like(sides))
    found_bias = moments.best_bias(weight)
    error, scale = 0.0, 0.0
    for group in range(groups):
        own, other = (t.unflatten(1, (groups, -1))[:, group] for t in (x, y))
        dense = layer.dense.unflatten(0, (groups, -1))[group]
        offset = dense_bias.detach().unflatten(0, (groups, -1))[group] if bias else torch.zeros(3)
        target = other @ dense.T + offset
        centred = own - own.mean(dim=0) if bias else own
        weight_of_ridge = (ridge * centred.square().sum(dim=0).mean()).sqrt()
        for row in range(outputs):
            support = kept[group, row].nonzero().flatten()
            ones = [torch.ones(rows, 1, dtype=torch.float64)] if bias else []
            design = torch.cat([own[:, support], *ones], dim=1)
            pull = weight_of_ridge * torch.eye(width, dtype=torch.float64)
            pulled = torch.cat(
                [pull[:, support], *([torch.zeros(width, 1)] if bias else [])], dim=1
            )
            solution = torch.linalg.lstsq(
                torch.cat([design, pulled]),
                torch.cat([target[:, row], weight_of_ridge * dense[row]])[:, None],
            ).solution.flatten()
            torch.testing.assert_close(weight[group, row, support], solution[: len(support)])
            if bias:
                assert found_bias is not None
                torch.testing.assert_close(found_bias[group, row], solution[-1])
            error += float((design @ solution - target[:, row]).square().sum())
            mean = target[:, row].mean() if bias else 0
            scale += float((target[:, row] - mean).square().sum())
    assert moments.error(weight, found_bias) == pytest.approx(error / scale)


def test_large_means_do_not_cost_the_precision_of_the_variance():
    layer = layer_with(1, 5, 4, bias=True)
    layer = Layer.of("layer", layer.kind.module.float(), 0.5)
    generator = torch.Generator().manual_seed(0)
    x = 1e4 + torch.randn(400, 5, generator=generator)
    shared = InputMoments(1, 5, shifted=True, like=torch.zeros(()))
    moments = LayerMoments.of(layer, shared, layer.kind.module.bias)
    shared.add(x, x)
    moments.add_outputs(x)
    hessian, _ = moments.equations().ridged(0.0)
    exact = (x.double() - x.double().mean(dim=0)).mT @ (x.double() - x.double().mean(dim=0))
    torch.testing.assert_close(hessian[0].double(), exact, rtol=1e-3, atol=0.5)
    dense = layer.dense[None]
    assert moments.error(dense, layer.kind.module.bias.detach()[None]) < 1e-6
