"""Passes as the tests take them, and what they say of some weights of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from icbs.curvature.fisher import Fisher
from icbs.curvature.passes import Pass, take_pass
from icbs.curvature.source import CurvatureSource, QuadraticModel
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.gates import Gates
from icbs.model.layer import Layer


def empirical(samples: int) -> Fisher:
    """Second moment of gradients for the targets of the data: nothing is drawn."""
    return Fisher(samples, drawn=False)


def look(
    model: nn.Module,
    layers: list[Layer],
    objective: Objective,
    samples: Samples,
    source: CurvatureSource | None = None,
    **changes: Any,
) -> Pass:
    """Take a pass, with a generator and a size of batch where the test does not mind them."""
    settings = {"batch_size": 64, "generator": torch.Generator().manual_seed(0)} | changes
    return take_pass(model, layers, objective, samples, source, **settings)


def model_of(found: Pass, gates: Gates) -> QuadraticModel:
    """The quadratic model of a block, where it is a single one."""
    (model,) = found.models(gates)
    return model


def factor_of(found: Pass, layer: Layer, index: Tensor) -> Tensor:
    """The Fisher's factor on weights of a layer, a gate each."""
    factor = model_of(found, Gates.single(layer, index)).factor
    assert factor is not None
    return factor


def matrix_of(found: Pass, layer: Layer, index: Tensor) -> Tensor:
    """The dense curvature on weights of a layer, a gate each."""
    matrix = model_of(found, Gates.single(layer, index)).matrix
    assert matrix is not None
    return matrix
