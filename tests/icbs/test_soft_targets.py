"""Targets that are probabilities, such as the dense model's outputs."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import ClassificationLoss, Pruner, SoftTargetsWarning, recover
from icbs.config import PrunerConfig
from icbs.curvature.hessian import Hessian
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from tests.icbs.conftest import make_toy
from tests.icbs.passes import factor_of, matrix_of
from tests.icbs.test_curvature import look

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
    assert warning.filename == __file__  # the line that called the pruner


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
    assert Objective(F.binary_cross_entropy).has_soft_targets(targets)
    assert not Objective(nn.BCEWithLogitsLoss()).has_soft_targets(targets.round())


def test_a_global_step_announces_it_too():
    toy = make_toy()
    batches = [(x, shares(toy.model, x, y)) for x, y in toy.batches]
    dense = copy.deepcopy(toy.model)
    masks = prune_layerwise(toy.model, batches, "magnitude", density=0.5).masks
    given = {"dense": dense, "method": "global", "progress": False}
    with pytest.warns(SoftTargetsWarning, match="monte-carlo") as caught:
        recover(toy.model, masks, batches, toy.loss, curvature="empirical", **given)
    assert [w.filename for w in caught if w.category is SoftTargetsWarning] == [__file__]


def test_why_it_is_announced(toy64):
    """At the dense model its own outputs give a Fisher of 0, and the Hessian is not 0."""
    layers = find_layers(toy64.model, PrunerConfig())
    x, y = toy64.samples
    samples = Samples(x[:50], shares(toy64.model, x[:50], y))
    index = torch.arange(layers[2].size)
    hessian = matrix_of(look(toy64.model, layers, samples, Hessian(50)), layers[2], index)
    factor = factor_of(look(toy64.model, layers, samples), layers[2], index)
    assert torch.linalg.norm(factor.T @ factor) < 1e-12 * torch.linalg.norm(hessian)
