"""Scores and initial masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config import PrunerConfig
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.plugins import SCORES
from icbs.selection.scores import initial_mask, movable
from tests.icbs.passes import look


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    share=st.floats(0.01, 0.99),
    scope=st.sampled_from(["layer", "output", "input"]),
    seed=st.integers(0, 1000),
)
def test_initial_masks_are_exact_to_the_weight(rows, columns, share, scope, seed):
    scores = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    keep = round(share * rows * columns)
    kept = ~initial_mask(scores, keep, scope).view(rows, columns)
    assert kept.sum() == keep
    if scope == "layer":
        if 0 < keep < scores.numel():
            assert scores[kept].min() >= scores[~kept].max()
        return
    lines, counts = (kept, kept.sum(1)) if scope == "output" else (kept.T, kept.sum(0))
    assert counts.max() - counts.min() <= 1
    for line, values in zip(lines, scores if scope == "output" else scores.T, strict=True):
        if line.any() and not line.all():
            assert values[line].min() >= values[~line].max()


@settings(max_examples=40, deadline=None)
@given(fix_prune=st.floats(0, 0.99), fix_keep=st.floats(0, 0.99), seed=st.integers(0, 1000))
def test_only_the_extremes_are_fixed(fix_prune, fix_keep, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(8, 10, generator=generator)
    pruned = initial_mask(scores, 24, "layer")
    free = movable(scores, pruned, fix_prune, fix_keep)
    flat = scores.flatten()
    for side, share, low in ((pruned, fix_prune, True), (~pruned, fix_keep, False)):
        fixed, loose = side & ~free, side & free
        assert fixed.sum() == int(share * side.sum())
        if fixed.any() and loose.any():
            assert (
                (flat[fixed].max() <= flat[loose].min())
                if low
                else (flat[fixed].min() >= flat[loose].max())
            )


def test_scores_against_their_formulas(toy64):
    layers = find_layers(toy64.model, PrunerConfig())
    x, y = toy64.samples
    generator = torch.Generator().manual_seed(0)
    pass_info = look(toy64.model, layers, Objective(toy64.loss), Samples(x, y))
    toy64.loss(toy64.model(x), y).backward()
    inputs = {"0": x, "2": toy64.model[:2](x), "4": toy64.model[:4](x)}
    for layer in layers:
        weight = layer.module.weight
        names = [name for name in SCORES.builtin if name != "trajectory"]
        found = {name: SCORES.get(name)(layer, pass_info, generator) for name in names}
        torch.testing.assert_close(found["magnitude"], weight.abs().detach())
        norms = inputs[layer.name].norm(dim=0)
        torch.testing.assert_close(found["wanda"], (weight.abs() * norms).detach())
        torch.testing.assert_close(found["gradient"], (weight * weight.grad).abs().detach())
        torch.testing.assert_close(found["taylor"], -(weight * weight.grad).detach())
        assert found["random"].shape == weight.shape
        assert found["random"].unique().numel() > 0.9 * weight.numel()


def test_taylor_predicts_what_returning_a_weight_saves(toy64):
    """To first order, the loss falls by the score when a pruned weight comes back."""
    layers = find_layers(toy64.model, PrunerConfig(density=0.5))
    x, y = toy64.samples
    layer = layers[1]
    layer.set_mask(initial_mask(layer.dense.abs(), layer.num_keep, "layer"))
    pass_info = look(toy64.model, layers, Objective(toy64.loss), Samples(x, y), batch_size=600)
    score = SCORES.get("taylor")(layer, pass_info, torch.Generator()).flatten()
    with torch.no_grad():
        before = float(toy64.loss(toy64.model(x), y))
    step = 1e-4
    for i in layer.pruned.nonzero()[:20, 0].tolist():
        with torch.no_grad():
            layer.module.weight.view(-1)[i] = step * layer.dense.view(-1)[i]
            saved = before - float(toy64.loss(toy64.model(x), y))
            layer.module.weight.view(-1)[i] = 0.0
        assert saved / step == pytest.approx(float(score[i]), abs=1e-4)
