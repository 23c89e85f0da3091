"""Models of timm with random weights: what is found, and the cut against the masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from icbs.structure import cut, find_dimensions
from icbs.structure.counts import count
from icbs.structure.gating import closed

timm: Any = pytest.importorskip("timm")
MODELS = {
    "vit_tiny_patch16_224": ("heads,neurons", 24, 224),
    "convnext_atto": ("channels", 12, 64),
    "resnet18": ("channels", 12, 64),
    "efficientnet_lite0": ("channels", 24, 64),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_timm_are_cut(name: str) -> None:
    kinds, number, size = MODELS[name]
    torch.manual_seed(0)
    model = timm.create_model(name).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, size, size).double()
    dimensions = find_dimensions(model, images, kinds.split(","))
    assert len(dimensions) == number
    kept = {one.name: torch.arange(one.groups) % 2 == 0 for one in dimensions}
    with torch.no_grad(), closed(model, dimensions, kept):
        masked = model(images)
    small = cut(model, dimensions, kept)
    assert (small(images) - masked).abs().max() <= 1e-10
    assert count(small, images).macs < 0.7 * count(model, images).macs
