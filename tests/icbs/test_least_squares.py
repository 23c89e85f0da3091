"""``least-squares`` on whole models, against a reference with whole forward passes."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from icbs import CausalLMLoss, recover
from icbs.config import PrunerConfig
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from icbs.recovery import least_squares
from icbs.recovery.pairs import paired_order
from icbs.recovery.recover import recovery_settings
from icbs.recovery.ridge import LARGEST, LEAST, best_ridge
from icbs.recovery.subject import Subject
from tests.icbs.test_batch_statistics import convolutional, images, random_masks
from tests.icbs.test_experts import build as build_experts
from tests.icbs.test_layerwise import decoder, texts

RIDGE = 0.01


def received(model: nn.Module, name: str, samples: Any) -> Tensor:
    """A layer's inputs at positions other than padding."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with torch.no_grad():
        model(**samples.inputs)
    handle.remove()
    return seen[0][samples.inputs["attention_mask"].bool()]


def by_hand(model: nn.Module, dense: nn.Module, masks: dict[str, Tensor], subject: Subject) -> None:
    """Layer after layer, all inputs by passes of the whole models."""
    stages = [["stem"]]
    for i in range(3):
        for names in (["query", "value"], ["up"], ["down"]):
            stages.append([f"layers.{i}.{name}" for name in names])
    stages.append(["head"])
    for stage in stages:
        inputs = {
            name: [
                (received(model, name, part), received(dense, name, part))
                for part in (subject.samples, subject.heldout)
            ]
            for name in stage
        }
        for name in stage:
            layer, reference = model.get_submodule(name), dense.get_submodule(name)
            (x, y), held = inputs[name]
            weight = reference.weight.detach()
            bias = reference.bias
            target = y @ weight.T + (0 if bias is None else bias.detach())
            mean, at = (0, 0) if bias is None else (x.mean(dim=0), target.mean(dim=0))
            gram = (x - mean).T @ (x - mean)
            ridge = RIDGE * gram.diagonal().mean()
            new = torch.zeros_like(weight)
            for row, support in enumerate(masks[name]):
                index = support.nonzero().flatten()
                side = (x - mean).T @ (target - at)[:, row] + ridge * weight[row]
                matrix = gram[index][:, index] + ridge * torch.eye(len(index))
                new[row, index] = torch.linalg.solve(matrix, side[index])
            offset = None if bias is None else at - new @ mean

            def error(w: Tensor, b: Any, pair: Any = held) -> Tensor:
                x, y = pair
                wanted = y @ weight.T + (0 if bias is None else bias.detach())  # noqa: B023
                return (wanted - x @ w.T - (0 if b is None else b)).square().sum()

            old = layer.weight.detach().clone()
            if error(new, offset) < error(old, None if bias is None else layer.bias.detach()):
                layer.weight.data = new
                if offset is not None:
                    layer.bias.data = offset


@pytest.mark.parametrize("tuples", [False, True])
def test_replayed_blocks_agree_with_whole_forward_passes(tuples):
    dense, slow, model = (decoder(tuples=tuples) for _ in range(3))
    masks = prune_layerwise(decoder(tuples=tuples), texts(40), "wanda", density=0.6).masks
    config = recovery_settings(None, "least-squares", {"heldout_share": 0.3, "ridge": RIDGE})
    with torch.no_grad():
        for name, mask in masks.items():
            slow.get_submodule(name).weight.mul_(mask)
    subject = Subject.prepare(decoder(), masks, texts(40), CausalLMLoss(), config)
    by_hand(slow, dense, masks, subject)
    loss = CausalLMLoss()
    result = recover(
        model,
        masks,
        texts(40),
        loss,
        method="least-squares",
        heldout_share=0.3,
        ridge=RIDGE,
        iterations=400,
        batch_size=7,
    )
    assert [row.label for row in result.history] == [
        "stem",
        *(f"layers.{i}.query … layers.{i}.down" for i in range(3)),
        "head",
    ]
    if not result.history[-1].best:
        pytest.fail("the last state is not the best; choose other masks for this test")
    moved = 0
    for name, mask in masks.items():
        new, reference = model.get_submodule(name), slow.get_submodule(name)
        torch.testing.assert_close(new.weight, reference.weight, atol=2e-3, rtol=1e-2)
        assert not new.weight[~mask].any()
        moved += int((new.weight != dense.get_submodule(name).weight)[mask].any())
        if new.bias is not None:
            torch.testing.assert_close(new.bias, reference.bias, atol=2e-3, rtol=1e-2)
    assert moved >= 8


def test_errors_are_those_of_the_outputs_for_convolutions_with_groups():
    """Stride, padding, and depthwise ones: as measured by hooks on calibration samples."""
    model, dense = convolutional(), convolutional()
    masks = random_masks(model, 0.6)
    result = recover(
        model, masks, images(), nn.CrossEntropyLoss(), method="least-squares", statistics=False,
        ridge=0.0, iterations=300,
    )  # fmt: skip
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    x = images()[0][0]
    row = next(row for row in result.history if row.label == "0")
    for share, found in (
        (x[order[12:]], row.calibration_error),
        (x[order[:12]], row.heldout_error),
    ):
        with torch.no_grad():
            wanted, given = dense[0](share), model[0](share)
        if result.history[-1].best:
            assert found == pytest.approx(
                float((wanted - given).square().sum() / wanted.square().sum())
            )
    assert result.loss < result.initial_loss


def test_a_layer_corrects_the_errors_of_the_layers_before_it():
    """Dense targets: all of a layer's error can be undone by the next layer."""
    torch.manual_seed(0)
    first, second = nn.Linear(6, 6, bias=False).double(), nn.Linear(6, 4).double()
    dense = nn.Sequential(first, second)
    model = copy.deepcopy(dense)
    masks = {"0": torch.ones(6, 6, dtype=torch.bool), "1": torch.ones(4, 6, dtype=torch.bool)}
    masks["1"][0, 0] = False
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(0.5)
        scaled[1].weight.mul_(masks["1"])
    scaled[0].weight.requires_grad_(False)
    x = torch.randn(200, 6, dtype=torch.float64)
    batches = [(x, dense(x).detach())]
    recover(scaled, masks, batches, nn.MSELoss(), dense=dense, method="least-squares", ridge=0.0)
    assert torch.equal(scaled[0].weight, 0.5 * first.weight), "a frozen layer has moved"
    torch.testing.assert_close(scaled[1].weight[1:], 2 * second.weight[1:], atol=1e-3, rtol=1e-3)


def test_rank_deficient_inputs_are_no_obstacle(toy64):
    """Fewer samples than inputs, a constant input, and one that is always 0."""
    x = toy64.samples[0][:8].clone()
    x[:, 3], x[:, 5] = 1.0, 0.0
    masks = {name: torch.rand(toy64.model.get_submodule(name).weight.shape) < 0.5 for name in "024"}
    y = toy64.samples[1][:8]
    for ridge in (0.01, 0.0):
        model = copy.deepcopy(toy64.model)
        result = recover(model, masks, [(x, y)], toy64.loss, method="least-squares", ridge=ridge)
        assert result.loss <= result.initial_loss
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_experts_are_compared_on_their_own_inputs():
    """The two models route samples differently, so that inputs can't be paired."""
    model, batches = build_experts(8)
    masks = {
        name: torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(i)) < 0.6
        for i, (name, module) in enumerate(model.named_modules())
        if isinstance(module, nn.Linear)
    }
    result = recover(model, masks, batches, nn.CrossEntropyLoss(), method="least-squares")
    assert result.loss <= result.initial_loss
    assert {row.label for row in result.history} >= {"router", "head"}
    for name, mask in masks.items():
        assert not model.get_submodule(name).weight[~mask].any()


def test_layers_with_the_same_inputs_are_solved_together():
    masks = prune_layerwise(decoder(), texts(), "magnitude", density=0.6).masks
    config = recovery_settings(None, "least-squares", {})
    subject = Subject.prepare(decoder(), masks, texts(), CausalLMLoss(), config)
    with torch.no_grad():
        names = [
            [[layer.name for layer in stage] for stage in group.stages()]
            for group in paired_order(subject)
        ]
    assert names[1] == [
        ["layers.0.query", "layers.0.value"],
        ["layers.0.up"],
        ["layers.0.down"],
    ]


def test_stored_calls_of_the_dense_model_save_runs_and_change_nothing(monkeypatch):
    """With room for none, for those of some samples, and for all."""
    found, counts = [], []
    masks = prune_layerwise(decoder(), texts(), "wanda", density=0.6).masks
    for size in (0, 20_000, 1 << 30):
        monkeypatch.setattr(least_squares, "_room", lambda limit, size=size: size)
        model, dense, runs = decoder(), decoder(), Counter()
        dense.get_submodule("layers.1").register_forward_pre_hook(
            lambda *_, runs=runs: runs.update(["block"])
        )
        recover(
            model, masks, texts(), CausalLMLoss(), dense=dense, method="least-squares", batch_size=4
        )
        found.append(dict(model.named_parameters()))
        counts.append(runs["block"])
    for name, tensor in found[0].items():
        assert all(torch.equal(tensor, other[name]) for other in found[1:]), name
    assert counts[0] > counts[1] > counts[2]


def test_it_is_logged_which_layers_are_frozen(toy, caplog):
    toy.model[2].weight.requires_grad_(False)
    before = toy.model[2].weight.clone()
    masks = {name: torch.rand(toy.model.get_submodule(name).weight.shape) < 0.5 for name in "024"}
    with caplog.at_level(logging.INFO, "icbs"):
        recover(toy.model, masks, toy.batches, toy.loss, method="least-squares")
    assert "1 layers are frozen and keep their weights: '2'" in caplog.text
    assert torch.equal(toy.model[2].weight, before * masks["2"])


def test_no_graphs_of_the_hidden_states_are_kept():
    """They would hold all activations of all blocks."""
    model, modes = decoder(), []
    masks = prune_layerwise(decoder(), texts(), "wanda", density=0.6).masks

    def watch(progress: Any) -> None:
        if progress.done == 1:
            model.get_submodule("layers.1.up").register_forward_pre_hook(
                lambda module, args: modes.append(args[0].requires_grad or args[0].grad_fn)
            )

    recover(model, masks, texts(), CausalLMLoss(), method="least-squares", callback=watch)
    assert len(modes) > 5
    assert not any(modes)


@given(best=st.integers(LEAST - 2, LARGEST + 2), tilt=st.floats(0, 0.9))
def test_the_search_finds_the_ridge_of_lowest_error(best, tilt):
    """For errors that fall up to it and rise after it."""
    tried = []

    def error(ridge: float) -> float:
        exponent = round(math.log10(ridge))
        tried.append(exponent)
        return abs(exponent - best) + tilt * (exponent - best)

    found = best_ridge(error)
    assert len(set(tried)) == len(tried) <= LARGEST - LEAST + 1
    assert found == 10.0 ** min(max(best, LEAST), LARGEST)


def test_a_ridge_without_a_finite_error_is_not_the_best():
    assert best_ridge(lambda ridge: ridge if ridge <= 1e-2 else math.nan) == 1e-4


def test_the_chosen_ridge_is_the_best_for_heldout_samples(toy):
    """Few samples: the search overfits less than a small ridge."""
    x, y = toy.samples
    masks = {name: torch.rand(toy.model.get_submodule(name).weight.shape) < 0.7 for name in "024"}
    errors = {}
    for ridge in (None, 1e-4, 1e-2, 1.0):
        model = copy.deepcopy(toy.model)
        with torch.no_grad():  # a perturbed first layer, so that inputs differ
            model[0].weight[~masks["0"]] = 0
            model[2].weight[~masks["2"]] = 0
            model[4].weight[~masks["4"]] = 0
        result = recover(
            model, masks, [(x[:20], y[:20])], toy.loss, dense=toy.model,
            heldout=[(x[100:], y[100:])], method="least-squares", ridge=ridge,
        )  # fmt: skip
        errors[ridge] = result.history[0].heldout_error
    assert errors[None] <= min(errors[ridge] for ridge in (1e-4, 1e-2, 1.0)) * (1 + 1e-4)


@pytest.mark.parametrize("limit", [256, 20_000, 1 << 40])
def test_few_unfolded_features_exist_at_a_time_if_memory_is_short(limit):
    (layer,) = find_layers(nn.Sequential(nn.Conv2d(3, 5, 3)), PrunerConfig())
    inputs, chunk = torch.randn(7, 3, 9, 8), least_squares._chunk(limit)
    output = layer.module(inputs).shape
    parts = list(least_squares._features(layer, inputs, output, None, chunk))
    one = 7 * 6 * 27  # features of a sample
    assert all(part.numel() <= max(chunk, one) for part in parts)
    whole = layer.kind.features(inputs, output, 7).flatten(0, 1)
    assert torch.equal(torch.cat(parts), whole)
    assert len(parts) == (1 if limit == 1 << 40 else 7)
