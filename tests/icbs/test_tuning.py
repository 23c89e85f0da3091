"""Targets of the tuning of scales: residual streams, and positions that are padding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from icbs.data.losses import ClassificationLoss
from icbs.groups.kwon import prune_in_stages
from icbs.groups.residuals import residual_inputs
from icbs.structure import find_dimensions
from tests.icbs import structured_models

RESIDUALS = {
    "bert": ("attention.self.value", "intermediate.dense"),
    "distilbert": ("attention.v_lin", "ffn.lin1"),
    "vit": ("layernorm_before", "layernorm_after"),
    "gpt2": ("ln_1", "ln_2"),
    "llama": ("input_layernorm", "post_attention_layernorm"),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_of_transformers_are_found(name: str) -> None:
    model, inputs = structured_models.make(name)
    dimensions = find_dimensions(model, inputs)
    readers = {one.readers[0].module: [w.module for w in one.writers] for one in dimensions}
    found = residual_inputs(model, inputs, readers)
    assert set(found) == set(readers)
    assert all(module.endswith(RESIDUALS[name]) for module in found.values())


def test_a_model_without_residuals_has_none() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4), nn.LayerNorm(4))
    assert residual_inputs(model, torch.randn(3, 4), {"2": ["0"]}) == {}


def test_padding_has_no_effect_on_the_scales() -> None:
    model, _ = structured_models.make("bert")
    tokens = torch.randint(50, (48, 9))
    mask = torch.ones_like(tokens)
    mask[:, 5:] = 0
    targets = torch.randint(2, (48,))
    changed = torch.where(mask == 1, tokens, (tokens + 7) % 50)

    def scales(ids: Tensor) -> dict[str, Tensor]:
        batches = [({"input_ids": ids, "attention_mask": mask}, targets)]
        found = prune_in_stages(
            copy.deepcopy(model), batches, ClassificationLoss(), budget={"macs": 0.6}, seed=0
        )
        return found.scales

    first, second = scales(tokens), scales(changed)
    assert len(first) == 6
    for name, values in first.items():
        assert torch.allclose(values, second[name], atol=1e-8)
