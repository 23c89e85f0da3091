"""``icbs.recover(…, method="distill")`` on small models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import CausalLMLoss, ConfigError, recover
from icbs.layerwise import prune_layerwise
from icbs.recovery.config import RecoveryConfig
from icbs.recovery.subject import Subject
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.language import make_language_model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def run(toy: Toy, **settings: Any) -> Any:
    masks = prune_layerwise(copy.deepcopy(toy.model), None, "magnitude", density=0.3).masks
    settings = {"method": "distill", "learning_rate": 5e-3, "progress": False} | settings
    result = recover(toy.model, masks, toy.batches, toy.loss, **settings)
    for name, mask in masks.items():
        assert not toy.model.get_submodule(name).weight.detach()[~mask].any()
    assert all(p.requires_grad for p in toy.model.parameters())
    assert all(p.grad is None for p in toy.model.parameters())
    return result


@pytest.mark.parametrize("parameters", ["all", "low-rank", "vectors"])
@pytest.mark.parametrize("target", ["dense", "data"])
def test_the_loss_falls_and_masks_hold(parameters, target):
    toy = make_toy()
    before = weights(toy.model)
    result = run(toy, parameters=parameters, target=target, rank=2)
    assert result.loss < 0.9 * result.initial_loss
    assert result.method == "distill"
    for name, mask in result.masks.items():
        weight = toy.model.get_submodule(name).weight.detach()
        moved = bool((weight != before[f"{name}.weight"])[mask].any())
        assert moved == (parameters != "vectors")


def test_the_change_of_low_rank_has_that_rank_before_the_mask():
    toy = make_toy(torch.float64)
    dense = copy.deepcopy(toy.model)
    masks = {
        name: torch.ones_like(m.weight, dtype=torch.bool)
        for name, m in toy.model.named_modules()
        if isinstance(m, nn.Linear)
    }
    masks["4"][0, 0] = False  # so that there is something to recover
    recover(
        *(toy.model, masks, toy.batches, toy.loss),
        method="distill",
        parameters="low-rank",
        rank=2,
        epochs=2,
        progress=False,
    )
    change = (toy.model[2].weight - dense[2].weight).detach()
    assert torch.linalg.matrix_rank(change, rtol=1e-9) == 2


def test_updates_are_those_of_adam_on_the_divergence():
    toy = make_toy(torch.float64)
    dense, other = copy.deepcopy(toy.model), copy.deepcopy(toy.model)
    settings = {"epochs": 2, "batch": 480, "patience": 9}  # all calibration samples at once
    result = run(toy, **settings)
    assert result.history[-1].best, "otherwise the model is that of an earlier epoch"
    subject = Subject.prepare(
        *(copy.deepcopy(dense), result.masks, toy.batches, toy.loss, RecoveryConfig.of())
    )
    inputs = subject.samples.inputs
    for name, mask in result.masks.items():
        module = other.get_submodule(name)
        module.weight.data *= mask
        module.weight.register_hook(lambda gradient, mask=mask: gradient * mask)
    optimizer = torch.optim.Adam(other.parameters(), lr=5e-3, betas=(0.9, 0.95))
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - epoch / 2)
        optimizer.zero_grad()
        p = dense(inputs).softmax(-1).detach()
        nn.functional.cross_entropy(other(inputs), p).backward()
        optimizer.step()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(toy.model.get_parameter(name), parameter)


@pytest.mark.parametrize("parameters", ["all", "low-rank", "vectors"])
def test_an_interrupted_recovery_continues_to_the_same_bits(tmp_path: Path, parameters):
    settings = {"epochs": 5, "parameters": parameters, "checkpoint_every": 0, "data_weight": 0.2}
    toy = make_toy()
    whole = run(toy, **settings)
    final = weights(toy.model)

    def stop(progress: Any) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    toy = make_toy()
    with pytest.raises(KeyboardInterrupt):
        run(toy, run=tmp_path / "r", callback=stop, **settings)
    toy = make_toy()
    resumed = run(toy, run=tmp_path / "r", **settings)
    assert resumed.loss == whole.loss
    assert all(torch.equal(p, final[name]) for name, p in toy.model.named_parameters())


def test_it_stops_when_the_held_out_error_no_longer_falls():
    toy = make_toy()
    toy.batches = [(x[:40], y[:40]) for x, y in toy.batches[:1]]
    result = run(toy, epochs=100, learning_rate=0.02, batch=4, patience=2)
    rows = [row for row in result.history if row.step]
    assert len(rows) < 100
    lowest = min(row.heldout_error for row in rows[:-2])
    assert all(row.heldout_error >= lowest for row in rows[-2:])
    assert result.loss <= result.initial_loss


def test_half_precision_weights_move_by_less_than_their_rounding():
    toy = make_toy()
    model = toy.model.to(torch.bfloat16)
    toy.batches = [(x.to(torch.bfloat16), y) for x, y in toy.batches]
    result = run(toy, learning_rate=1e-3, epochs=10)
    assert result.loss < 0.9 * result.initial_loss
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())


def test_a_language_model_with_small_updates(tmp_path: Path):
    model = make_language_model()
    tokens = torch.randint(257, (10, 12), generator=torch.Generator().manual_seed(0))
    masks = prune_layerwise(copy.deepcopy(model), None, "magnitude", density=0.3).masks
    result = recover(
        *(model, masks, [({"input_ids": tokens}, tokens)], CausalLMLoss()),
        method="distill",
        batch=4,
        epochs=3,
        progress=False,
    )
    assert result.history[-1].heldout_error < result.history[0].heldout_error


def test_a_model_without_vectors_can_not_train_them():
    toy = make_toy()
    toy.model = nn.Sequential(nn.Linear(12, 6, bias=False), nn.Linear(6, 4, bias=False))
    with pytest.raises(ConfigError, match="parameters='vectors'"):
        run(toy, parameters="vectors")


def test_a_pruned_model_needs_its_dense_model_or_other_targets():
    toy = make_toy()
    masks = prune_layerwise(toy.model, None, "magnitude", density=0.3).masks
    args = (toy.model, masks, toy.batches, toy.loss)
    with pytest.raises(ConfigError, match="target='data'"):
        recover(*args, method="distill", progress=False)
    result = recover(*args, method="distill", target="data", progress=False)
    assert result.loss < result.initial_loss
