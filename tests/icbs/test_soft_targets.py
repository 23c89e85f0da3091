"""Targets that are probabilities, such as the dense model's outputs."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import ClassificationLoss, Pruner, SoftTargetsWarning
from icbs.data.objective import Objective
from tests.icbs.conftest import make_toy

SETTINGS = {"density": 0.5, "passes": 1, "block_size": 16, "acceptance_samples": 100}


def prune(change, curvature, loss=None):
    """Prune the toy with changed targets; return the warnings about them."""
    toy = make_toy()
    batches = [(x, change(toy.model, x, y)) for x, y in toy.batches]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Pruner(**SETTINGS, curvature=curvature).prune(toy.model, batches, loss or toy.loss)
    return [w for w in caught if issubclass(w.category, SoftTargetsWarning)]


def shares(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).softmax(dim=1).detach()


def one_hot(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.one_hot(y, 4).float()


def labels(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return y


@pytest.mark.parametrize("loss", [None, ClassificationLoss(), F.cross_entropy])
def test_an_empirical_fisher_of_probabilities_is_announced_once(loss):
    (warning,) = prune(shares, "empirical", loss)
    assert "monte-carlo" in str(warning.message)


@pytest.mark.parametrize(
    ("change", "curvature"),
    [(labels, "empirical"), (one_hot, "empirical"), (shares, "monte-carlo")],
)
def test_labels_and_drawn_targets_are_not(change, curvature):
    assert not prune(change, curvature)


def test_a_regression_may_have_any_targets():
    targets = torch.rand(5, 4)
    assert not Objective(nn.MSELoss()).has_soft_targets(targets)
    assert Objective(nn.BCEWithLogitsLoss()).has_soft_targets(targets)
    assert not Objective(nn.BCEWithLogitsLoss()).has_soft_targets(targets.round())


def test_why_it_is_announced():
    """At the dense model its own outputs give a gradient of 0, and the Hessian is not 0."""
    toy = make_toy(torch.float64)
    x = toy.batches[0][0][:8]
    taught = shares(toy.model, x, toy.batches[0][1])
    head = toy.model[-1]
    inner = toy.model[:-1](x).detach()

    def loss(bias: Tensor) -> Tensor:
        return F.cross_entropy(inner @ head.weight.T + bias, taught)

    bias = head.bias.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(bias), bias)
    hessian = torch.autograd.functional.hessian(loss, bias.detach())
    assert gradient.abs().max() < 1e-12
    assert torch.linalg.eigvalsh(hessian).max() > 1e-3
