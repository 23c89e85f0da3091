"""Losses for all kinds of model outputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from icbs import CausalLMLoss, ClassificationLoss, DataError, Pruner
from icbs.data.losses import logits_of
from icbs.data.objective import Objective
from icbs.data.positions import IGNORED
from tests.icbs.conftest import make_toy


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Token by token, in float64."""
    shares = logits.double().log_softmax(-1)
    samples = []
    for sample, own in zip(shares, labels, strict=True):
        losses = [-sample[t - 1, own[t]] for t in range(1, len(own)) if own[t] != IGNORED]
        samples.append(sum(losses) / len(losses) if losses else 0.0)
    return float(sum(samples)) / len(samples)


@given(st.integers(1, 4), st.integers(2, 7), st.integers(0, 10**6))
def test_sequences_have_equal_weight_without_ignored_tokens(samples, length, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, length, 5, generator=generator)
    labels = torch.randint(5, (samples, length), generator=generator)
    labels[torch.rand(samples, length, generator=generator) < 0.3] = IGNORED
    loss = CausalLMLoss()
    assert float(loss(logits, labels)) == pytest.approx(by_hand(logits, labels), abs=1e-5)
    singles = [float(loss(logits[i : i + 1], labels[i : i + 1])) for i in range(samples)]
    assert float(loss(logits, labels)) == pytest.approx(sum(singles) / samples, abs=1e-5)
    changed = logits.clone()
    changed[:, :-1][labels[:, 1:] == IGNORED] = 100.0
    changed[:, -1] = 7.0
    assert torch.equal(loss(changed, labels), loss(logits, labels))


def test_logits_are_found_in_all_kinds_of_outputs():
    from transformers.modeling_outputs import CausalLMOutput

    logits = torch.randn(2, 3, 4)
    kinds = [
        logits,
        (logits, "cache"),
        (torch.tensor(0.5), logits),
        [logits],
        {"logits": logits},
        CausalLMOutput(logits=logits),
        SimpleNamespace(logits=logits),
    ]
    for outputs in kinds:
        assert logits_of(outputs) is logits


@pytest.mark.parametrize("outputs", [None, (), {"hidden": torch.ones(2, 3)}, (torch.tensor(1.0),)])
def test_outputs_without_logits_are_named(outputs):
    with pytest.raises(DataError, match=f"{type(outputs).__name__} without logits"):
        logits_of(outputs)


def test_logits_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"shape \(2, 4\) do not match labels of shape \(2, 3\)"):
        CausalLMLoss()(torch.ones(2, 4), torch.ones(2, 3, dtype=torch.long))


def test_tokens_are_drawn_from_what_precedes_them():
    logits = torch.full((3, 4, 6), -1e9)
    certain = torch.randint(6, (3, 4), generator=torch.Generator().manual_seed(1))
    logits.scatter_(2, certain[:, :, None], 0.0)
    drawn = CausalLMLoss().sample(logits, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, 1:], certain[:, :-1])
    assert (drawn[:, 0] == IGNORED).all()


def test_positions_without_a_label_get_none_in_a_draw():
    logits, labels = torch.randn(3, 6, 5), torch.randint(5, (3, 6))
    labels[1, 2:] = IGNORED
    objective = Objective(CausalLMLoss())
    drawn = objective.sample_targets(logits, labels, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, 1:] == IGNORED, labels[:, 1:] == IGNORED)


def test_draws_follow_the_distribution():
    shares = torch.tensor([0.5, 0.3, 0.2])
    logits = shares.log().expand(4000, 3)
    drawn = ClassificationLoss().sample({"logits": logits}, torch.Generator().manual_seed(0))
    found = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(found, shares, atol=0.03)


def test_classification_accepts_classes_and_probabilities():
    logits = torch.randn(5, 3)
    classes = torch.tensor([0, 2, 1, 1, 0])
    shares = F.one_hot(classes, 3).float()
    loss = ClassificationLoss()
    assert torch.allclose(loss((logits,), classes), loss({"logits": logits}, shares))


class InDict(nn.Module):
    """A classifier that returns its logits in a dict."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"logits": self.model(x)}


def test_a_classifier_that_returns_a_mapping_is_pruned_equally():
    settings = {"density": 0.3, "block_size": 32, "passes": 3, "gradient_samples": 200}
    bare, wrapped = make_toy(), make_toy()
    model = InDict(wrapped.model)
    plain = Pruner(**settings).prune(bare.model, bare.batches, bare.loss)
    other = Pruner(**settings).prune(model, wrapped.batches, ClassificationLoss())
    for name, mask in plain.masks.items():
        assert torch.equal(other.masks[f"model.{name}"], mask)
