"""Scores of groups: zeros of activations, fluctuation and its bias, scales of normalisations."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from icbs import Pruner
from icbs.config import PrunerConfig
from icbs.errors import LayerError
from icbs.groups.flap import add_mean_biases
from icbs.groups.scores import GroupInformation
from icbs.groups.slimming import shrink_scales
from icbs.plugins import GROUP_SCORES
from icbs.run.context import RunContext
from tests.icbs.group_models import LOSS, convolutions, perceptron


def scores_of(name: str, model: nn.Module, batches, groups: str) -> np.ndarray:
    config = PrunerConfig.of(groups=groups, density=0.5, curvature="empirical")
    context = RunContext.prepare(model, batches, LOSS, config)
    generator = torch.Generator().manual_seed(0)
    gates = context.grouping.gates
    pass_info = context.take_pass(generator, 0, lambda _: {gates.name: gates})
    return GROUP_SCORES.get(name)(GroupInformation(context.grouping, context, pass_info, generator))


def test_dead_units_have_the_score_0_and_their_removal_changes_no_bit():
    model, batches = perceptron()
    dead = [1, 4, 7, 8, 9]
    with torch.no_grad():
        model[0].bias[dead] = -100.0
    x = batches[0][0]
    before = model(x)
    scores = scores_of("apoz", model, batches, "neurons")
    assert (scores[dead] == 0).all()
    assert (np.delete(scores[:10], dead) > 0).all()
    result = Pruner(groups="neurons", density=0.5, initial="apoz", passes=0, include="0 neurons")
    kept = result.prune(model, batches, LOSS, progress=False).groups["0 neurons"]
    assert not kept[dead].any()
    assert torch.equal(model(x), before)


def test_apoz_is_the_share_of_zeros():
    model, batches = convolutions()
    config = PrunerConfig.of(groups="channels", density=0.5, curvature="empirical")
    context = RunContext.prepare(model, batches, LOSS, config)
    count = min(context.num_samples, len(context.pool))
    x = context.pool[:count].inputs
    with torch.no_grad():
        second = model[:6](x)  # read by the linear layer, each position with its own column
    alive = (second != 0).double().mean(dim=(0, 2, 3))
    scores = scores_of("apoz", model, batches, "channels")
    assert scores[6:] == pytest.approx(alive.numpy())


def test_flap_is_the_fluctuation_of_the_output_and_its_bias_keeps_the_mean():
    model, batches = perceptron()
    dense = copy.deepcopy(model)
    result = Pruner(groups="neurons", density=0.5, initial="flap", passes=0, include="2 neurons")
    masks = result.prune(model, batches, LOSS, progress=False).masks
    add_mean_biases(model, masks, batches, LOSS, dense=dense)
    x = batches[0][0]
    with torch.no_grad():
        error = model(x) - dense(x)
        hidden = dense[:4](x)
    assert error.mean(dim=0).abs().max() < 1e-12
    pruned = ~masks["4"].any(dim=0)
    weight = dense[4].weight.detach()
    # With the mean kept, the error is the fluctuation of the pruned inputs.
    expected = (hidden - hidden.mean(dim=0))[:, pruned] @ weight[:, pruned].T
    assert torch.allclose(error, -expected, atol=1e-12)
    assert scores_of("flap", dense, batches, "neurons").shape == (18,)


def test_scales_are_the_score_of_slimming_and_need_batch_normalisation():
    model, batches = convolutions()
    scores = scores_of("slimming", model, batches, "channels")
    expected = torch.cat([model[1].weight, model[4].weight]).abs().detach()
    assert scores == pytest.approx(expected.numpy())
    with pytest.raises(LayerError, match="no batch normalisation"):
        scores_of("slimming", *perceptron(), "neurons")


def test_training_with_shrunk_scales_adds_the_subgradient_of_the_l1_norm():
    model, batches = convolutions()
    ((x, y),) = batches
    model.train()
    LOSS(model(x), y).backward()
    plain = [model[i].weight.grad.clone() for i in (1, 4)]
    other = model[0].weight.grad.clone()
    model.zero_grad()
    with shrink_scales(model, 0.3):
        LOSS(model(x), y).backward()
    for i, before in zip((1, 4), plain, strict=True):
        scale = model[i].weight
        assert torch.allclose(scale.grad, before + 0.3 * scale.detach().sign())
    assert torch.equal(model[0].weight.grad, other)
    model.zero_grad()
    LOSS(model(x), y).backward()
    assert torch.equal(model[1].weight.grad, plain[0])
    with pytest.raises(LayerError, match="no batch normalisation"):
        shrink_scales(perceptron()[0])


def test_l1_training_shrinks_the_scales():
    sums = []
    for strength in (0.0, 0.05):
        model, batches = convolutions()
        ((x, y),) = batches
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with shrink_scales(model, strength):
            for _ in range(150):
                optimizer.zero_grad()
                LOSS(model(x), y).backward()
                optimizer.step()
        scales = torch.cat([model[1].weight, model[4].weight]).abs()
        sums.append(float(scales.sum()))
    assert sums[1] < 0.7 * sums[0]
