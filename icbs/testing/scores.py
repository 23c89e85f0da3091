"""Conformance check of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icbs.curvature.passes import take_pass
from icbs.testing import toy


def check_score(score: Callable[..., Tensor]) -> None:
    """Check a score on a small classifier.

    Parameters
    ----------
    score : callable
        ``score(layer, pass_info, generator)``, as it is registered.

    Raises
    ------
    AssertionError
        Naming the violated requirement.
    """
    model, samples = toy.make_model(), toy.make_samples()
    layers = toy.make_layers(model)
    found = take_pass(
        model,
        layers,
        toy.make_objective(),
        samples,
        None,
        batch_size=16,
        generator=torch.Generator().manual_seed(0),
    )
    for layer in layers:
        before = layer.weight.clone(), layer.dense.clone(), layer.pruned.clone()
        first, second = (_of(score, layer, found) for _ in range(2))
        assert isinstance(first, Tensor), f"a score is a tensor, not {type(first).__name__}"
        assert tuple(first.shape) == layer.shape, (
            f"the score of a layer has its shape {layer.shape}, not {tuple(first.shape)}"
        )
        assert first.is_floating_point(), f"a score is of floating point, not {first.dtype}"
        assert torch.isfinite(first).all(), "a score is not finite"
        assert torch.equal(first, second), "two equal calls give different scores"
        after = layer.weight, layer.dense, layer.pruned
        assert all(map(torch.equal, before, after)), "the score changes the layer"


def _of(score: Callable[..., Tensor], layer: Any, found: Any) -> Tensor:
    return score(layer, found, torch.Generator().manual_seed(1))
