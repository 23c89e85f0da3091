"""Recovery in bfloat16: results like those in float32, and weights in their own type."""

from __future__ import annotations

import copy

import pytest
import torch

from icbs import CausalLMLoss, ConfigError, Pruner, RecoveryConfig, recover
from icbs.layerwise import prune_layerwise
from tests.icbs.test_layerwise import decoder, texts

SETTINGS = {"distill": {"epochs": 4, "learning_rate": 3e-3, "batch": 4}, "global": {"steps": 3}}


@pytest.mark.parametrize("method", ["distill", "global"])
def test_a_recovery_in_bfloat16_is_like_that_in_float32(method):
    found = {}
    for precision in ("float32", "bfloat16"):
        model = decoder().float()
        dense = copy.deepcopy(model)
        masks = prune_layerwise(model, texts(), "magnitude", density=0.4).masks
        found[precision] = recover(
            *(model, masks, texts(24), CausalLMLoss()),
            dense=dense,
            method=method,
            precision=precision,
            progress=False,
            **SETTINGS[method],
        )
        for name, mask in masks.items():
            weight = model.get_submodule(name).weight
            assert weight.dtype == torch.float32
            assert not weight.detach()[~mask].any()
    full, half = found["float32"], found["bfloat16"]
    gain = full.initial_loss - full.loss
    assert gain > 0
    assert half.initial_loss == pytest.approx(full.initial_loss, rel=0.01)
    assert half.initial_loss != full.initial_loss  # the passes ran in another type
    assert half.loss == pytest.approx(full.loss, abs=0.3 * gain)


def test_weights_move_between_passes_in_bfloat16():
    model = decoder().float()
    result = Pruner(
        density=0.4, passes=4, block_size=32, weights="global", precision="bfloat16"
    ).prune(model, texts(24), CausalLMLoss(), progress=False)
    assert result.loss < result.initial_loss
    for name, mask in result.masks.items():
        assert not model.get_submodule(name).weight.detach()[~mask].any()


def test_another_precision_is_refused():
    with pytest.raises(ConfigError, match="precision.*float32"):
        RecoveryConfig.of(precision="float16")
