"""``judge="divergence"``: the state nearest to the dense model, without a higher loss."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import CausalLMLoss, ConfigError, DataError, recover
from icbs.layerwise import prune_layerwise
from icbs.recovery.config import RecoveryConfig
from icbs.recovery.subject import Subject
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.language import make_language_model

SETTINGS = {
    "method": "distill",
    "judge": "divergence",
    "learning_rate": 0.02,
    "epochs": 6,
    "patience": 9,
    "progress": False,
}


def magnitude_masks(model: nn.Module) -> dict[str, Tensor]:
    return prune_layerwise(copy.deepcopy(model), None, "magnitude", density=0.3).masks


def run(toy: Toy, **settings: Any) -> Any:
    masks = magnitude_masks(toy.model)
    return recover(toy.model, masks, toy.batches, toy.loss, **SETTINGS | settings)


def test_the_best_state_has_the_lowest_divergence_without_a_higher_loss():
    toy = make_toy(torch.float64)
    dense = copy.deepcopy(toy.model)
    result = run(toy)
    rows = [row for row in result.history if row.heldout_loss <= result.initial_loss]
    lowest = min(rows, key=lambda row: row.heldout_divergence)
    assert result.divergence == lowest.heldout_divergence < result.initial_divergence
    assert result.loss == lowest.heldout_loss <= result.initial_loss
    assert "divergence from the dense model" in str(result)

    subject = Subject.prepare(
        *(copy.deepcopy(dense), result.masks, toy.batches, toy.loss, RecoveryConfig.of())
    )
    inputs = subject.heldout.inputs
    with torch.no_grad():
        p, q = dense(inputs).softmax(-1), toy.model(inputs).softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert math.isclose(result.divergence, float(expected), rel_tol=1e-9)


def test_a_higher_loss_is_not_accepted_for_a_lower_divergence():
    """The targets of the data are those that the pruned model gives already."""
    toy = make_toy(torch.float64)
    masks = magnitude_masks(toy.model)
    pruned = copy.deepcopy(toy.model)
    for name, mask in masks.items():
        pruned.get_submodule(name).weight.data *= mask
    batches = [(x, pruned(x).argmax(1)) for x, _ in toy.batches]
    result = recover(toy.model, masks, batches, toy.loss, **SETTINGS | {"learning_rate": 0.05})
    rows = [row for row in result.history if row.heldout_divergence < result.divergence]
    assert rows, "otherwise nothing was refused"
    assert all(row.heldout_loss > result.initial_loss for row in rows)
    assert result.loss <= result.initial_loss


def test_the_loss_decides_by_default():
    result = run(make_toy(), judge="loss")
    assert math.isnan(result.divergence)
    assert all(math.isnan(row.heldout_divergence) for row in result.history)
    assert result.loss == min(row.heldout_loss for row in result.history)


def test_an_interrupted_recovery_continues_to_the_same_bits(tmp_path: Path):
    toy = make_toy()
    whole = run(toy)
    final = {name: p.detach().clone() for name, p in toy.model.named_parameters()}

    def stop(progress: Any) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    where = {"run": tmp_path / "r", "checkpoint_every": 0}
    with pytest.raises(KeyboardInterrupt):
        run(make_toy(), callback=stop, **where)
    toy = make_toy()
    resumed = run(toy, **where)
    assert (resumed.divergence, resumed.loss) == (whole.divergence, whole.loss)
    assert all(torch.equal(p, final[name]) for name, p in toy.model.named_parameters())


def test_a_share_of_generated_samples_is_held_out():
    model = make_language_model()
    tokens = torch.randint(257, (10, 12), generator=torch.Generator().manual_seed(0))
    arguments = (magnitude_masks(model), [({"input_ids": tokens}, tokens)], CausalLMLoss())
    found = {
        judge: Subject.prepare(
            copy.deepcopy(model), *arguments, RecoveryConfig.of(generate=20, judge=judge)
        )
        for judge in ("loss", "divergence")
    }
    assert [len(s.heldout) for s in found.values()] == [2, 2 + 4]
    assert [len(s.samples) for s in found.values()] == [8 + 20, 8 + 16]
    used, held = (
        part.targets for part in (found["divergence"].samples, found["divergence"].heldout)
    )
    assert not (used[:, None] == held[None]).all(dim=2).any()


def test_without_a_dense_model_or_a_distribution_it_is_refused(tmp_path: Path):
    toy = make_toy()
    masks = magnitude_masks(toy.model)
    pruned = copy.deepcopy(toy.model)
    for name, mask in masks.items():
        pruned.get_submodule(name).weight.data *= mask
    folder = tmp_path / "r"
    with pytest.raises(ConfigError, match="judge='divergence' needs the dense model"):
        recover(pruned, masks, toy.batches, toy.loss, **SETTINGS | {"target": "data"}, run=folder)

    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none").square().mean()

    with pytest.raises(DataError, match=r"judge='divergence' is not possible.*set judge='loss'"):
        recover(toy.model, masks, toy.batches, own, **SETTINGS | {"target": "data"}, run=folder)
    assert not folder.exists()
