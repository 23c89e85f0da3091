"""The curvature of ``global`` has the scale of the loss, whatever it is averaged over."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import CausalLMLoss, recover
from icbs.config import PrunerConfig
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from icbs.recovery.closed_form import ClosedForm
from icbs.recovery.global_step import GlobalSettings
from icbs.recovery.gradient_rows import GradientRows
from icbs.recovery.levenberg_marquardt import Problem
from tests.icbs.conftest import make_toy
from tests.icbs.test_closed_form import dense_rows, flat, kept_entries, setup

POSITIONS = 6


class Tokens(nn.Module):
    """Logits of each position, with classes last or, for torch's own loss, second."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        found = self.head(self.inner(x).tanh())
        return found if self.last else found.movedim(2, 1)


def make(name: str) -> tuple[nn.Module, Samples, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, POSITIONS, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (8, POSITIONS), generator=generator)
    if name == "causal":
        labels[::2, 3:] = -100
        return Tokens(last=True).double(), Samples(x, labels), CausalLMLoss()
    if name == "positions":
        return Tokens(last=False).double(), Samples(x, labels), nn.CrossEntropyLoss()
    if name == "summed":
        loss = nn.CrossEntropyLoss(reduction="sum")
        return Tokens(last=False).double(), Samples(x, labels), loss
    if name == "classes":
        return (
            nn.Sequential(nn.Linear(3, 5)).double(),
            Samples(x[:, 0], labels[:, 0]),
            nn.CrossEntropyLoss(),
        )
    targets = torch.rand(8, 5, generator=generator, dtype=torch.float64)
    loss = nn.BCEWithLogitsLoss() if name == "binary" else nn.MSELoss()
    return nn.Sequential(nn.Linear(3, 5)).double(), Samples(x[:, 0], targets), loss


def divergences(name: str, outputs: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Mean divergence from the distribution of some outputs, as the loss averages it."""
    if name == "squared":
        return (outputs - other).square().mean()
    if name == "binary":
        each = F.binary_cross_entropy_with_logits
        return each(other, outputs.sigmoid()) - each(outputs, outputs.sigmoid())
    axis = 2 if name == "causal" else 1
    p, q = outputs.log_softmax(axis), other.log_softmax(axis)
    each = F.kl_div(q, p, reduction="none", log_target=True).sum(axis)
    if name == "summed":
        return each.sum() / len(each)
    if name != "causal":
        return each.mean()
    counted = targets[:, 1:] != -100
    return ((each[:, :-1] * counted).sum(dim=1) / counted.sum(dim=1)).mean()


@torch.no_grad()
def trace(name: str, model: nn.Module, samples: Samples) -> float:
    """Trace of the Hessian of the mean divergence at 0, by differences of each weight."""
    step, total = 1e-3, 0.0
    outputs = model(samples.inputs)
    for module in model.modules():
        if not isinstance(module, nn.Linear):
            continue
        for index in range(module.weight.numel()):
            for sign in (1, -1):
                moved = module.weight.view(-1)[index]
                moved += sign * step
                found = divergences(name, outputs, model(samples.inputs), samples.targets)
                total += float(found) / step**2
                moved -= sign * step
    return total


@pytest.mark.parametrize(
    ("name", "positions", "draws"),
    [
        *((name, n, 60) for name in ("causal", "positions", "summed") for n in (1, 4)),
        # One output a sample: positions don't matter, and draws vary more.
        *((name, 1, 150) for name in ("classes", "binary", "squared")),
    ],
)
def test_the_curvature_is_in_expectation_the_hessian_of_the_divergence(name, positions, draws):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, samples, loss = make(name)
    layers = find_layers(model, PrunerConfig(density=0.5))
    objective = Objective.check(loss, model, samples, samples.targets, draws=True)
    problem = Problem(
        *(model, layers, objective, samples, samples),
        GlobalSettings(target="data", positions=positions),
        batch_size=3,
        seed=0,
        biases=False,
    )
    traces, diagonals = [], []
    for seed in range(draws):
        form, _ = problem.linearise(0, torch.Generator().manual_seed(seed))
        traces.append(float(form.values.sum()) / form.rows.count)
        _, curvature = problem.diagonal(torch.Generator().manual_seed(seed))
        diagonals.append(sum(float(h.sum()) for h in curvature.values()))
    expected = trace(name, model, samples)
    assert sum(traces) / draws == pytest.approx(expected, rel=0.1)
    assert sum(diagonals) / draws == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_step_with_factors_of_rows_equals_a_dense_solve(drawn):
    model, layers, samples, objective = setup("linear")
    kept, gradient, other = kept_entries(layers, biases=False), None, samples
    if drawn:
        gradient = GradientRows(model, layers, objective, samples, batch_size=4).mean()
        other = Samples(samples.inputs, samples.targets.roll(1))
    rows = GradientRows(model, layers, objective, other, batch_size=4)
    factors = 1 + torch.arange(len(rows), dtype=torch.float64)
    form = ClosedForm.of(rows, gradient=gradient, factors=factors)
    g = dense_rows(model, layers, samples, objective, False).mean(dim=0)[kept]
    C = dense_rows(model, layers, other, objective, False)[:, kept]
    F_ = C.T @ (factors[:, None] * C) / len(C)
    assert form.scale == pytest.approx(float(torch.linalg.eigvalsh(F_)[-1]))
    for damping in (1e-3, 1.0):
        expected = -torch.linalg.solve(F_ + damping * torch.eye(len(g), dtype=g.dtype), g)
        torch.testing.assert_close(flat(form.solve(damping), layers)[kept], expected)
        change = float(g @ expected + expected @ F_ @ expected / 2)
        assert form.predicted(damping) == pytest.approx(change, rel=1e-9)


def test_the_unit_of_a_loss_of_ones_own_does_not_change_the_result():
    found = []
    for unit in (1.0, 1e4):

        def own(outputs: Tensor, targets: Tensor, unit: float = unit) -> Tensor:
            return unit * nn.functional.cross_entropy(outputs, targets)

        toy = make_toy(torch.float64)
        masks = prune_layerwise(copy.deepcopy(toy.model), None, "magnitude", density=0.3).masks
        settings = {"target": "data", "curvature": "empirical", "steps": 2, "rows": 64}
        recover(*(toy.model, masks, toy.batches, own), method="global", progress=False, **settings)
        found.append([p.detach() for p in toy.model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
