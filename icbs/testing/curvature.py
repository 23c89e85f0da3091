"""Conformance check of curvature sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.curvature.passes import Pass, take_pass
from icbs.curvature.source import Batch, CurvatureSource, PassSizes, QuadraticModel
from icbs.model.gates import Gates
from icbs.testing import toy

SETTINGS: dict[str, Any] = {"density": 0.5, "curvature_samples": 20, "gradient_samples": 60}


def check_curvature(factory: Callable[[PrunerConfig], CurvatureSource]) -> None:
    """Check a curvature source on a small classifier, for single weights and for sets of them.

    Parameters
    ----------
    factory : callable
        ``factory(settings)``, as it is registered.

    Raises
    ------
    AssertionError
        Naming the violated requirement.
    """
    source = factory(PrunerConfig(**SETTINGS))
    assert isinstance(source, CurvatureSource), (
        f"the factory returned {type(source).__name__}, not a CurvatureSource"
    )
    _check_memory(source)
    for midway in (True, False):
        first, second = (_models(factory, midway=midway, sets=False) for _ in range(2))
        joined = _models(factory, midway=midway, sets=True)
        for name, (models, gates) in first.items():
            if source.models_loss:
                assert any(model.gradients is not None for model in models if model.models_loss), (
                    "the source says that it models the loss, and no model of it does"
                )
            for model in models:
                _check_model(model, gates, source)
            assert _equal(models, second[name][0]), "two equal passes give different models"
            _check_sets(models, gates, *joined[name])


def _pass(source: CurvatureSource, *, midway: bool, sets: bool) -> tuple[Pass, dict[str, Gates]]:
    """Take a pass over the samples with a block in every layer."""
    model, samples = toy.make_model(), toy.make_samples()
    layers = toy.make_layers(model)
    objective = toy.make_objective()
    source.check(Batch(model, layers, objective, samples[:1], torch.Generator().manual_seed(0)))
    blocks = {}
    for layer in layers:
        members = toy.some_sets(layer)
        if sets:
            blocks[layer.name] = Gates.of_sets(layer, members)
        else:
            blocks[layer.name] = Gates.single(layer, torch.cat(members))
    found = take_pass(
        model,
        layers,
        objective,
        samples,
        source,
        batch_size=16,
        generator=torch.Generator().manual_seed(3),
        select=(lambda pass_info: blocks) if midway else None,
        select_after=15,
    )
    return found, blocks


def _models(
    factory: Callable[[PrunerConfig], CurvatureSource], *, midway: bool, sets: bool
) -> dict[str, tuple[list[QuadraticModel], Gates]]:
    source = factory(PrunerConfig(**SETTINGS))
    found, blocks = _pass(source, midway=midway, sets=sets)
    result = {}
    for name, gates in blocks.items():
        models = found.models(gates)
        assert models, "no collector, and so no quadratic model of a block"
        assert _equal(models, found.models(gates)), "a model changes when it is asked for again"
        result[name] = models, gates
    return result


def _check_model(model: QuadraticModel, gates: Gates, source: CurvatureSource) -> None:
    assert (model.factor is None) != (model.matrix is None), (
        "a model has a factor or a matrix, and not both"
    )
    if model.factor is not None:
        assert tuple(model.factor.shape[1:]) == (len(gates),), (
            f"a factor has shape (N, {len(gates)}), not {tuple(model.factor.shape)}"
        )
    curvature = _curvature(model)
    shape = len(gates), len(gates)
    assert curvature.shape == shape, f"C has shape {shape}, not {tuple(curvature.shape)}"
    assert torch.isfinite(curvature).all(), "the curvature is not finite"
    scale = float(curvature.abs().max()) or 1.0
    assert float((curvature - curvature.T).abs().max()) <= 1e-6 * scale, "C is not symmetric"
    assert min(model.dispersion, model.weight) > 0, "dispersion and weight are positive"
    assert source.models_loss or not model.models_loss, (
        "the source says that it does not model the loss, and a model of it does"
    )
    if model.gradients is not None:
        sizes = [len(part.index) for part in gates.parts]
        assert [len(g) for g in model.gradients] == sizes, "gradients have one entry a weight"
        assert all(torch.isfinite(g).all() for g in model.gradients), "a gradient is not finite"


def _check_sets(
    models: list[QuadraticModel],
    single: Gates,
    joined: list[QuadraticModel],
    gates: Gates,
) -> None:
    """Compare gates of several weights with the sum over gates of single weights."""
    gate = gates.parts[0].gate
    assert gate is not None
    incidence = torch.zeros(len(single), len(gates), dtype=torch.float64)
    incidence[torch.arange(len(single)), gate.cpu()] = 1
    for one, many in zip(models, joined, strict=True):
        expected = incidence.T @ _curvature(one) @ incidence
        error = float((_curvature(many) - expected).abs().max())
        assert error <= 1e-6 * (float(expected.abs().max()) or 1.0), (
            "the curvature of gates of several weights is not the sum over their weights"
        )


def _check_memory(source: CurvatureSource) -> None:
    model = toy.make_model()
    layers = toy.make_layers(model)
    for midway in (True, False):
        estimate = source.memory(PassSizes(layers, 60, [12, 12, 12], 1000, midway))
        assert all(isinstance(size, int) and size >= 0 for size in estimate.values()), (
            f"memory() returns numbers of bytes, not {estimate}"
        )


def _curvature(model: QuadraticModel) -> Tensor:
    if model.matrix is not None:
        return model.matrix.double().cpu()
    assert model.factor is not None
    factor = model.factor.double().cpu()
    return factor.T @ factor


def _equal(first: list[QuadraticModel], second: list[QuadraticModel]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(_curvature(a), _curvature(b)) for a, b in zip(first, second, strict=True)
    )
