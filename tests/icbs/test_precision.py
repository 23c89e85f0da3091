"""Mixed precision: the same gradients, within what the type can hold."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from icbs import Pruner, SlowPrecisionWarning
from icbs.config import PrunerConfig
from icbs.curvature.hooks import hooked
from icbs.data import precision
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from tests.icbs import passes
from tests.icbs.passes import empirical, factor_of


def look(model: nn.Module, layers: list[Layer], samples: Samples, precision: str):  # type: ignore[no-untyped-def]
    objective = Objective(nn.CrossEntropyLoss())
    objective.precision = precision  # type: ignore[assignment]
    return passes.look(model, layers, objective, samples, empirical(50), batch_size=32)


@pytest.mark.parametrize(("precision", "close"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_gradients_and_factors_are_close_and_in_float32(toy, precision, close):
    layers = find_layers(toy.model, PrunerConfig())
    samples = Samples(*toy.samples)[:80]
    full, half = (look(toy.model, layers, samples, p) for p in ("float32", precision))
    for layer in layers:
        index = torch.arange(30)
        for a, b in (
            (full.gradients[layer.name], half.gradients[layer.name]),
            (factor_of(full, layer, index), factor_of(half, layer, index)),
        ):
            assert b.dtype == torch.float32
            assert 0 < torch.linalg.norm(a - b) < close * torch.linalg.norm(a)


def test_scaling_saves_gradients_that_float16_can_not_hold():
    """Gradients of 1e-8 are 0 in float16; scaled by 2¹⁴ they are not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    layers = find_layers(model, PrunerConfig(density=0.5))
    samples = Samples(torch.randn(20, 6), torch.randint(3, (20,)))

    def small(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 1e-7 * nn.functional.cross_entropy(outputs.float(), targets)

    def sizes(precision: str, scaled: bool) -> torch.Tensor:
        objective = Objective(small)
        objective.precision = precision  # type: ignore[assignment]
        found = torch.zeros(())
        with hooked(model, layers, len(samples)) as taps:
            total = objective.total(objective.run(model, samples.inputs), samples.targets)

            def sink(layer: Layer, call) -> None:  # type: ignore[no-untyped-def]
                found.add_(call.deltas.abs().sum())

            scale = taps.find_scale(total) if scaled else 1.0
            taps.send_back(total, sink, scale=scale)
        return found

    exact = sizes("float32", scaled=False)
    assert torch.isclose(sizes("float16", scaled=True), exact, rtol=0.02)
    assert not torch.isclose(sizes("float16", scaled=False), exact, rtol=0.02)


def test_a_scale_too_large_is_lowered():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    layers = find_layers(model, PrunerConfig(density=0.5))
    objective = Objective(lambda o, y: 1e4 * nn.functional.cross_entropy(o.float(), y))
    objective.precision = "float16"
    with hooked(model, layers, 20) as taps:
        outputs = objective.run(model, torch.randn(20, 6))
        total = objective.total(outputs, torch.randint(3, (20,)))
        assert taps.find_scale(total) < 2.0**14


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_mixed_precision_lowers_the_loss(toy, precision):
    settings = {"density": 0.3, "block_size": 32, "passes": 4, "precision": precision}
    result = Pruner(**settings).prune(copy.deepcopy(toy.model), toy.batches, toy.loss)
    assert result.loss < result.initial_loss


@pytest.mark.parametrize(("ratio", "warns"), [(8.0, True), (0.4, False)])
def test_a_precision_in_which_the_processor_is_slow_gives_a_warning(
    toy, monkeypatch, recwarn, ratio, warns
):
    monkeypatch.setattr(precision, "relative_time", lambda name: ratio)
    Pruner(density=0.5, passes=1, precision="bfloat16").prune(toy.model, toy.batches, toy.loss)
    found = [str(w.message) for w in recwarn if w.category is SlowPrecisionWarning]
    assert found == (
        ["this processor multiplies matrices in bfloat16 8 times slower than in float32; "
         "leave precision at float32"] if warns else []
    )  # fmt: skip


def test_the_relative_time_is_that_of_the_type_divided_by_that_of_float32(monkeypatch):
    seconds = {torch.bfloat16: 6.0, torch.float32: 2.0}
    assert all(0 < precision._seconds(dtype) < 60 for dtype in seconds)
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    assert precision.relative_time.__wrapped__("bfloat16") == 3.0
