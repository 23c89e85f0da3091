"""``icbs.recover(…, method="global")`` on small models."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import CausalLMLoss, ConfigError, DataError, recover
from icbs.layerwise import prune_layerwise
from icbs.recovery import memory
from icbs.recovery.config import RecoveryConfig
from icbs.recovery.gradient_rows import GradientRows
from icbs.recovery.recover import make_method
from icbs.recovery.subject import Subject
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.language import make_language_model


def magnitude(model: nn.Module, density: float) -> dict[str, Tensor]:
    return prune_layerwise(copy.deepcopy(model), None, "magnitude", density=density).masks


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def run(toy: Toy, density: float = 0.3, **settings: Any) -> Any:
    masks = magnitude(toy.model, density)
    settings = {"method": "global", "progress": False} | settings
    result = recover(toy.model, masks, toy.batches, toy.loss, **settings)
    for name, mask in masks.items():
        weight = toy.model.get_submodule(name).weight.detach()
        assert not weight[~mask].any()
        assert torch.equal(result.masks[name], mask)
    return result


@pytest.mark.parametrize("target", ["dense", "data"])
@pytest.mark.parametrize("curvature", ["monte-carlo", "empirical"])
def test_the_loss_falls_and_masks_hold(target, curvature):
    toy = make_toy()
    result = run(toy, target=target, curvature=curvature)
    assert result.loss < 0.7 * result.initial_loss
    assert result.method == "global"
    errors = [row.heldout_error for row in result.history]
    assert errors == sorted(errors, reverse=True), "each step lowers the error it minimises"


def test_most_of_the_loss_that_pruning_adds_is_taken_back():
    toy = make_toy()
    result = run(toy, steps=20)
    assert result.loss - result.dense_loss < 0.3 * (result.initial_loss - result.dense_loss)


def test_biases_and_frozen_parameters_stay_where_they_must():
    toy = make_toy()
    before = weights(toy.model)
    run(toy, biases=False)
    assert all(
        torch.equal(toy.model.get_parameter(f"{i}.bias"), before[f"{i}.bias"]) for i in "024"
    )
    toy = make_toy()
    toy.model[2].weight.requires_grad_(False)
    toy.model[4].bias.requires_grad_(False)
    run(toy)
    assert torch.equal(toy.model[4].bias, before["4.bias"])
    assert not torch.equal(toy.model[4].weight, before["4.weight"])
    kept = toy.model[2].weight != 0
    assert torch.equal(toy.model[2].weight[kept], before["2.weight"][kept])


def test_an_interrupted_recovery_continues_to_the_same_bits(tmp_path: Path):
    settings = {"steps": 5, "rows": 60, "gradient_samples": 100, "checkpoint_every": 0}
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


@pytest.mark.parametrize(
    "options",
    [{"positions": 1}, {"positions": 1000}, {"columns": 500, "max_memory": "2MB"}],
    ids=str,
)
def test_a_language_model_recovers_with_any_rows_and_columns(options):
    model = make_language_model()
    tokens = torch.randint(257, (12, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 1::2] = tokens[:, ::2]  # something to learn, or to keep
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            CausalLMLoss()(model(tokens), tokens).backward()
            optimizer.step()
    masks = magnitude(model, 0.5)
    result = recover(
        model,
        masks,
        [({"input_ids": tokens}, tokens)],
        CausalLMLoss(),
        method="global",
        rows=64,
        steps=3,
        **options,
        progress=False,
    )
    assert result.loss < result.initial_loss


def test_a_loss_of_ones_own_needs_the_targets_of_the_data():
    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    toy = make_toy()
    toy.loss = own  # type: ignore[assignment]
    with pytest.raises(DataError, match="target='data'"):
        run(toy)
    with pytest.raises(DataError, match="curvature='empirical'"):
        run(toy, target="data")
    result = run(toy, target="data", curvature="empirical")
    assert result.loss < result.initial_loss


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match="rows"):
        run(make_toy(), rows=0)
    with pytest.raises(ConfigError, match="curvature"):
        run(make_toy(), curvature="exact")


def test_little_free_memory_is_enough_for_a_small_model(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 200 << 20)
    toy = make_toy()
    result = run(toy, steps=1, rows=64)
    assert result.loss < result.initial_loss


@pytest.mark.parametrize("rows", [16, 64, 1024])
def test_the_memory_expected_covers_what_is_stored_and_little_more(rows):
    toy = make_toy()
    config = RecoveryConfig.of(method="global")
    subject = Subject.prepare(toy.model, magnitude(toy.model, 0.3), toy.batches, toy.loss, config)
    method = make_method("global", {"rows": rows})
    few = subject.samples[:rows]  # cloned, as a slice shares the storage of all samples
    few = dataclasses.replace(few, inputs=few.inputs.clone())
    passes = GradientRows(toy.model, subject.layers, subject.objective, few, batch_size=len(few))
    stored = len(few) * subject.call_bytes
    assert passes.hold(stored)
    assert not passes.hold(stored // 2)
    columns = 4 * len(few) * sum(layer.size for layer in subject.layers)
    expected = method.memory(subject)
    assert stored + columns <= expected <= 2 * (stored + columns) + 40 * len(few) ** 2


def test_small_memory_gives_the_same_steps():
    toy = make_toy(torch.float64)
    plain = run(toy, steps=2, rows=64)
    toy = make_toy(torch.float64)
    small = run(toy, steps=2, rows=64, max_memory="2MB")
    assert small.loss == pytest.approx(plain.loss, rel=1e-9)
