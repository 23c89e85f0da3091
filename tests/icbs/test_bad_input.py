"""Errors of bad inputs name them, and leave model and disk unchanged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from icbs import ConfigError, DataError, LayerError, Pruner, RunFolderError
from problems import IcbsError
from solvers import OptionError, UnknownSolverError, UnsupportedError

QUICK = {"passes": 2, "block_size": 16, "density": 0.5}


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"density": 0.0}, ConfigError, r"density = 0.0: .*greater than 0"),
        ({"density": 1.0}, ConfigError, r"density = 1.0: .*less than 1"),
        ({"density": float("nan")}, ConfigError, "density = nan"),
        ({"densities": {"0": 2.0}}, ConfigError, r"densities.0 = 2.0"),
        (
            {"initial": "size"},
            ConfigError,
            "initial = 'size': .*magnitude.*wanda.*gradient.*random",
        ),
        ({"selection": "best"}, ConfigError, "selection = 'best': .*taylor"),
        ({"curvature": "fisher"}, ConfigError, "curvature = 'fisher': .*monte-carlo.*empirical"),
        ({"compare": "row"}, ConfigError, "compare = 'row': .*output"),
        ({"block_size": 1}, ConfigError, "block_size = 1"),
        ({"tabu": 1.0}, ConfigError, "tabu = 1.0"),
        ({"blocksize": 8}, ConfigError, "unknown setting 'blocksize'.*block_size"),
        ({"seed": -1}, ConfigError, "seed = -1"),
        ({"solver": "magic"}, UnknownSolverError, "unknown solver 'magic'.*anneal"),
        ({"solver_options": {"speed": 9}}, OptionError, "no option 'speed'"),
        ({"solver": "exhaustive", "block_size": 1000}, UnsupportedError, "block_size=32 or less"),
        ({"solver": "diagonal", "solver_time_limit": 1.0}, UnsupportedError, "solver_time_limit"),
    ],
)
def test_settings(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        Pruner(**settings)
    assert isinstance(caught.value, IcbsError)


def refuse(
    model: nn.Module,
    batches: Any,
    error: type[Exception],
    match: str,
    run: Path,
    loss: Any = None,
    **settings: Any,
) -> None:
    """Expect an error that leaves weights and disk unchanged."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=match) as caught:
        Pruner(**QUICK | settings).prune(model, batches, loss or nn.CrossEntropyLoss(), run=run)
    assert isinstance(caught.value, IcbsError)
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())
    assert not run.exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"include": ["head.*"]}, r"'head.\*' matches no module.*0, 2, 4"),
        ({"exclude": ["nothing"]}, "'nothing' matches no module"),
        ({"densities": {"9": 0.5}}, "'9' matches no module"),
        ({"include": ["1"]}, "matches only ReLU.*nn.Linear"),
        ({"include": ["re:("]}, "not a regular expression"),
        ({"exclude": ["*"]}, "leave no layer"),
        ({"density": 0.001}, "keeps 0 of the"),
        ({"density": 0.9999}, "keeps 240 of the 240"),
    ],
)
def test_layers(toy, tmp_path, settings, match):
    refuse(toy.model, toy.batches, LayerError, match, tmp_path / "run", **settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(toy, tmp_path, value):
    with torch.no_grad():
        toy.model[2].weight[3, 4] = value
    refuse(toy.model, toy.batches, LayerError, "'2' has weights that are NaN", tmp_path / "run")


def test_shared_weights(toy, tmp_path):
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 4))
    model[2].weight = model[0].weight
    refuse(model, toy.batches, LayerError, "shares its weights", tmp_path / "run")


def replaced(toy, **changes: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = (t.clone() for t in toy.samples)
    for (name, at), value in changes.get("at", {}).items():
        {"x": x, "y": y}[name][at] = value
    return [(x, y)]


@pytest.mark.parametrize(
    ("at", "match"),
    [
        ({("x", 17): float("nan")}, "sample 17 has NaN"),
        ({("x", 599): float("inf")}, "sample 599 has NaN or infinite"),
        ({("y", 5): 4}, "labels run from 0 to 4.*0 … 3"),
        ({("y", 5): -1}, "labels run from -1"),
    ],
)
def test_samples(toy, tmp_path, at, match):
    refuse(toy.model, replaced(toy, at=at), DataError, match, tmp_path / "run")


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ([], "batches is empty"),
        ([torch.zeros(3, 12)], "pairs"),
        ([(torch.zeros(3, 12), torch.zeros(2).long())], "first dimension"),
        ([(torch.zeros(1, 12), torch.zeros(1).long())], "one sample"),
        ([("text", torch.zeros(1).long())], "inputs must be tensors"),
        (
            [
                (torch.zeros(3, 12), torch.zeros(3).long()),
                (torch.zeros(3, 7), torch.zeros(3).long()),
            ],
            "can't be concatenated",
        ),
    ],
)
def test_batches(toy, tmp_path, batches, match):
    refuse(toy.model, batches, DataError, match, tmp_path / "run")


def test_all_labels_ignored(toy, tmp_path):
    x, y = toy.samples
    batches = [(x, torch.full_like(y, -100))]
    refuse(toy.model, batches, DataError, "every label is -100", tmp_path / "run")


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (nn.CrossEntropyLoss(reduction="none"), "one number"),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2, 9.0])), "averages over samples"),
        (lambda o, y: nn.functional.cross_entropy(o, y) * float("nan"), "finite"),
    ],
)
def test_losses(toy, tmp_path, loss, match):
    refuse(toy.model, toy.batches, DataError, match, tmp_path / "run", loss=loss)


def test_monte_carlo_needs_a_distribution(toy, tmp_path):
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    refuse(toy.model, toy.batches, DataError, "curvature='empirical'", tmp_path / "run", loss=loss)
    Pruner(**QUICK, curvature="empirical").prune(toy.model, toy.batches, loss)


def test_gradients_that_are_not_finite(toy, tmp_path):
    class Cliff(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * float("nan")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(Cliff.apply(self.first(x)))

    refuse(Model(), toy.batches, DataError, "gradient of layer 'first' is NaN", tmp_path / "run")


def test_run_folder_that_exists(toy, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already.*resume"):
        Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss, run=tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]
