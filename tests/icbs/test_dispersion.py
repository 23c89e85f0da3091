"""Losses in any unit: dispersion of the Fisher matrix, and κ if no weight moves."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import CausalLMLoss, ClassificationLoss, NothingMovesWarning, Pruner
from icbs.acceptance.damping import Damping
from icbs.config import PrunerConfig
from icbs.curvature.fisher import Fisher
from icbs.curvature.hessian import Hessian
from icbs.data.dispersion import dispersion
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.formatting import counted
from icbs.model.finding import find_layers
from icbs.model.gates import Gates
from tests.icbs.passes import empirical, look, matrix_of, model_of

SETTINGS = {"density": 0.3, "passes": 6, "block_size": 64}


def fitted(unit: float = 1.0, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that fits noisy data, with targets in other units."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(600, 12, generator=generator)
    target = (x @ torch.randn(12, 1, generator=generator)).tanh()
    target = target + 0.1 * torch.randn(600, 1, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1))
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        adam.zero_grad()
        F.mse_loss(model(x), target).backward()
        adam.step()
    model.zero_grad()
    with torch.no_grad():
        model[2].weight.mul_(unit)
        model[2].bias.mul_(unit)
    return model, x, target * unit


def prune(loss: Any, unit: float, **settings: Any) -> Any:
    model, x, target = fitted(unit)
    return Pruner(**(SETTINGS | settings)).prune(model, [(x, target)], loss)


# -- φ ------------------------------------------------------------------------------------


def errors_of(name: str, count: int) -> tuple[nn.Module, Tensor]:
    """A loss, and errors of the distribution that it implies."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    uniform = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
    laplace = -uniform.sign() * (1 - 2 * uniform.abs()).log()
    return {
        "square": (nn.MSELoss(), 7 * normal),
        "square, summed": (nn.MSELoss(reduction="sum"), 7 * normal),
        "huber, near": (nn.HuberLoss(delta=50.0), 3 * normal),
        "huber, far": (nn.HuberLoss(delta=1.0), 20 * laplace),
        "smooth, near": (nn.SmoothL1Loss(beta=400.0), 30 * normal),
        "smooth, far": (nn.SmoothL1Loss(beta=0.5), 10 * laplace),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["square", "square, summed", "huber, near", "huber, far", "smooth, near", "smooth, far"],
)
def test_the_empirical_fisher_over_the_dispersion_is_the_hessian(name):
    """Compared with autograd's second derivatives, for errors of the implied distribution."""
    loss, error = errors_of(name, 40_000)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    x = torch.randn(len(error), 4, dtype=torch.float64)
    with torch.no_grad():
        samples = Samples(x, model(x) + error)
    layers = find_layers(model, PrunerConfig(density=0.5))
    objective = Objective(loss, sums=loss.reduction == "sum")

    index, size = torch.arange(12), len(samples)
    found = look(model, layers, objective, samples, empirical(size), batch_size=size)
    fisher = model_of(found, Gates.single(layers[0], index))
    pass_info = look(model, layers, objective, samples, Hessian(size), batch_size=size)
    exact = matrix_of(pass_info, layers[0], index)
    mine = fisher.factor.T @ fisher.factor / fisher.dispersion
    assert torch.linalg.norm(mine - exact) < 0.1 * torch.linalg.norm(exact)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0])),
        nn.CrossEntropyLoss(reduction="sum"),
        F.cross_entropy,
        nn.NLLLoss(),
        nn.BCEWithLogitsLoss(),
        F.binary_cross_entropy_with_logits,
        nn.GaussianNLLLoss(),
        CausalLMLoss(),
        ClassificationLoss(),
    ],
)
def test_likelihoods_have_none(loss):
    for mean in (1e-9, 0.3, 1e9, -2.0):
        assert dispersion(loss, mean, torch.tensor([0, 1, 1])) == 1.0
        assert Objective(loss).dispersion(mean, torch.tensor([0, 1, 1]), drawn=True) == 1.0


@pytest.mark.parametrize("mean", [0.0, -3.0, math.inf, math.nan])
def test_losses_without_a_positive_mean_have_dispersion_one(mean):
    assert dispersion(nn.L1Loss(), mean, torch.ones(3, 1)) == 1.0
    assert dispersion(lambda o, t: o, mean, torch.ones(3, 1)) == 1.0


def test_a_loss_that_nothing_is_known_of_is_measured_by_its_mean():
    assert dispersion(lambda o, t: o, 123.0, torch.ones(3, 7)) == 123.0
    assert dispersion(nn.L1Loss(), 70.0, torch.ones(3, 7)) == 10.0
    assert dispersion(nn.MSELoss(), 70.0, torch.ones(3, 7)) == 20.0


# -- what is pruned -----------------------------------------------------------------------


@pytest.mark.parametrize("unit", [2.0**-10, 2.0**10])  # powers of two: roundings stay the same
@pytest.mark.parametrize("name", ["l1", "mse", "mse summed", "huber", "own"])
def test_masks_do_not_depend_on_the_unit_of_the_targets(name, unit):
    def loss(unit: float) -> Any:
        return {
            "l1": nn.L1Loss(),
            "mse": nn.MSELoss(),
            "mse summed": nn.MSELoss(reduction="sum"),
            "huber": nn.HuberLoss(delta=0.1 * unit),
            "own": lambda o, t: torch.maximum(0.75 * (t - o), 0.25 * (o - t)).mean(),
        }[name]

    settings = {"curvature": "empirical"}
    one, other = prune(loss(1.0), 1.0, **settings), prune(loss(unit), unit, **settings)
    assert one.loss < 0.9 * one.initial_loss
    for layer, mask in one.masks.items():
        assert torch.equal(mask, other.masks[layer])


@pytest.mark.parametrize("unit", [1e-6, 1e4, 1e7])
@pytest.mark.parametrize("loss", [nn.L1Loss(), nn.MSELoss(), nn.HuberLoss()])
def test_the_decrease_of_the_loss_does_not_depend_on_units(loss, unit):
    one, other = (prune(loss, u, curvature="empirical", passes=10) for u in (1.0, unit))
    assert 1 - one.loss / one.initial_loss > 0.25
    assert 1 - other.loss / other.initial_loss > 0.25


@pytest.mark.parametrize("curvature", ["empirical", "monte-carlo"])
def test_masks_do_not_depend_on_the_unit_of_class_weights(toy, curvature):
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    found = []
    for unit in (1.0, 2.0**12):
        toy.model.load_state_dict(dense)
        loss = nn.CrossEntropyLoss(weight=unit * torch.tensor([1.0, 2, 4, 8]), reduction="sum")
        result = Pruner(**SETTINGS, curvature=curvature).prune(toy.model, toy.batches, loss)
        assert result.loss < 0.9 * result.initial_loss
        found.append(result.masks)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("unit", [1.0, 1e4, 1e9])
def test_the_noise_of_the_squared_error_is_above_rounding(unit):
    """In float32, 1e9 + 0.7 is 1e9, so that the Fisher matrix would be 0."""
    model, x, target = fitted(unit)
    samples = Samples(x, target)
    objective = Objective.check(nn.MSELoss(), model, samples[:4], target, draws=True)
    assert objective.noise == {1.0: 1.0, 1e4: 8.0, 1e9: 2.0**19}[unit]
    layers = find_layers(model, PrunerConfig(density=0.5))
    pass_info = look(model, layers, objective, samples, Fisher(600), batch_size=600)
    fisher = model_of(pass_info, Gates.single(layers[1], torch.arange(20)))
    factor = fisher.factor / fisher.dispersion**0.5
    hidden = model[:2](x).detach()[:, :20] * layers[1].dense[0, :20]
    exact = 2 * hidden.T @ hidden / 600
    assert torch.linalg.norm(factor.T @ factor - exact) < 0.15 * torch.linalg.norm(exact)


# -- κ where nothing moves ----------------------------------------------------------------


class Scaled:
    """Has a method ``sample``, but is not in nats."""

    def __init__(self, unit: float) -> None:
        self.unit = unit

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.unit * F.cross_entropy(outputs, targets)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return ClassificationLoss().sample(outputs, generator)


def moved(result: Any) -> list[int]:
    steps = 1 + max(row.step for row in result.history)
    return [sum(r.moved for r in result.history if r.step == s) for s in range(steps)]


@pytest.mark.parametrize("unit", ["block", "pass"])
def test_kappa_is_lowered_until_something_moves(toy, unit):
    settings = SETTINGS | {"passes": 20, "acceptance": unit}
    with pytest.warns(NothingMovesWarning, match="curvature_weight") as caught:
        result = Pruner(**settings).prune(toy.model, toy.batches, Scaled(1e5))
    assert sum(issubclass(w.category, NothingMovesWarning) for w in caught) == 1
    counts = moved(result)
    assert not any(counts[:3])
    assert sum(counts) > 20
    assert result.loss < 0.95 * result.initial_loss


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_a_run_that_moves_nothing_says_so_once(toy, passes):
    settings = SETTINGS | {"passes": passes, "damping": 1}
    with pytest.warns(NothingMovesWarning) as caught:
        result = Pruner(**settings).prune(toy.model, toy.batches, Scaled(1e5))
    said = [w for w in caught if issubclass(w.category, NothingMovesWarning)]
    assert len(said) == 1
    assert str(said[0].message).startswith(counted(min(passes, 3), "pass"))
    assert said[0].filename == __file__  # where the user called
    assert not any(moved(result))


def test_a_run_that_moves_says_nothing(toy):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NothingMovesWarning)
        Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss)


def test_what_was_lowered_is_not_forgotten_when_a_move_is_kept():
    damping = Damping(1.2)
    damping.by_layer["a"] = 0.01
    damping.update(["a"], accepted=True)
    assert damping.by_layer["a"] == 0.01
    damping.update(["a"], accepted=False)
    assert damping.by_layer["a"] == pytest.approx(0.012)
    damping = Damping(2.0)
    damping.by_layer["a"] = 1.1
    damping.update(["a"], accepted=True)
    assert damping.by_layer["a"] == 1.0


def test_a_run_whose_kappa_was_lowered_resumes_to_the_same_bits(toy, tmp_path):
    settings = SETTINGS | {"passes": 14, "checkpoint_every": 1}
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    with pytest.warns(NothingMovesWarning):
        whole = Pruner(**settings).prune(toy.model, toy.batches, Scaled(1e4))
    assert any(moved(whole))
    toy.model.load_state_dict(dense)
    run = tmp_path / "run"

    def stop(progress: Any) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pruner(**settings).prune(toy.model, toy.batches, Scaled(1e4), run=run, callback=stop)
    toy.model.load_state_dict(dense)
    with pytest.warns(NothingMovesWarning):
        found = Pruner.resume(run, toy.model, toy.batches, Scaled(1e4))
    assert found.loss == whole.loss
    assert [row.actual for row in found.history] == [row.actual for row in whole.history]
