"""Model outputs and ignored labels in the objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from icbs import (
    CausalLMLoss,
    ClassificationLoss,
    DataError,
    IgnoredSamplesWarning,
    Pruner,
)
from icbs.data.objective import Objective
from icbs.data.samples import Samples, read_samples
from tests.icbs.test_passes import Mixer, sequences

QUICK = {"passes": 2, "block_size": 16, "density": 0.5}


@dataclass
class Output:
    """A ``ModelOutput``."""

    logits: torch.Tensor


class Wrapped(nn.Module):
    """A model that returns its logits in a container."""

    def __init__(self, inner: nn.Module, wrap: Any) -> None:
        super().__init__()
        self.inner, self.wrap = inner, wrap

    def forward(self, *args: Any, **named: Any) -> Any:
        return self.wrap(self.inner(*args, **named))


WRAPS = {
    "bare": lambda logits: logits,
    "object": Output,
    "mapping": lambda logits: {"logits": logits, "states": None},
    "tuple": lambda logits: (logits, None),
}


def masks(result: Any) -> list[torch.Tensor]:
    return list(result.masks.values())


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), ClassificationLoss()])
def test_classifiers_may_wrap_their_logits(toy, wrap, loss):
    plain = Pruner(**QUICK).prune(toy.model, toy.batches, nn.CrossEntropyLoss())
    from tests.icbs.conftest import make_toy

    model = Wrapped(make_toy().model, WRAPS[wrap])
    found = Pruner(**QUICK).prune(model, toy.batches, loss)
    for mine, theirs in zip(masks(found), masks(plain), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("curvature", ["empirical", "monte-carlo"])
@pytest.mark.parametrize("sample", ["sequence", "token"])
def test_language_models_are_pruned_from_any_output(wrap, curvature, sample):
    torch.manual_seed(0)
    model = Wrapped(Mixer(), WRAPS[wrap])
    samples = sequences(count=40, pad=1)
    settings = {"curvature": curvature, "sample": sample, "include": ["inner.*"]}
    result = Pruner(**QUICK, **settings).prune(
        model, [(samples.inputs, samples.targets)], CausalLMLoss()
    )
    assert result.density == 0.5
    assert result.loss <= result.initial_loss


def test_drawn_labels_keep_ignored_positions():
    model, samples = Mixer(), sequences(pad=2)
    objective = Objective(CausalLMLoss())
    drawn = objective.sample_targets(
        model(**samples.inputs), samples.targets, torch.Generator().manual_seed(0)
    )
    assert torch.equal(drawn[:, 1:] == -100, samples.targets[:, 1:] == -100)
    assert not drawn.requires_grad


def test_samples_with_only_ignored_labels_are_dropped_with_a_warning():
    samples = sequences(count=6)
    samples.targets[[1, 4]] = -100
    with pytest.warns(IgnoredSamplesWarning, match="2 of 6 samples"):
        found = read_samples([(samples.inputs, samples.targets)], 10)
    keep = torch.tensor([0, 2, 3, 5])
    assert torch.equal(found.targets, samples.targets[keep])
    assert torch.equal(found.inputs["input_ids"], samples.inputs["input_ids"][keep])
    with pytest.raises(DataError, match="every label is -100"):
        read_samples([(samples.inputs, torch.full_like(samples.targets, -100))], 10)


def check(loss: Any, samples: Samples) -> Objective:
    torch.manual_seed(0)
    return Objective.check(loss, Mixer(), samples, samples.targets)


def test_a_loss_of_another_shape_is_refused_with_a_remedy():
    with pytest.raises(DataError, match="those of a language model.*CausalLMLoss"):
        check(nn.CrossEntropyLoss(), sequences())
    with pytest.raises(DataError, match=r"can't take outputs of \(9, 7, 11\) and targets of"):
        check(nn.MSELoss(), Samples(sequences().inputs, torch.randn(9, 5)))


def test_a_mean_over_tokens_is_refused_for_different_lengths():
    def over_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits.transpose(1, 2), labels)

    check(over_tokens, sequences())
    with pytest.raises(DataError, match="averages each sequence first"):
        check(over_tokens, sequences(pad=3))
    check(CausalLMLoss(), sequences(pad=3))


def test_tokens_outside_of_the_vocabulary_are_refused():
    samples = sequences()
    samples.targets[3, 2] = 11
    with pytest.raises(DataError, match="labels run from 0 to 11.*0 … 10"):
        check(CausalLMLoss(), samples)


def test_the_ignore_index_of_a_loss_is_honoured():
    """255 is the ignored label of many segmentation data sets; 0 is padding in many texts."""
    logits = torch.randn(6, 4, 7, generator=torch.Generator().manual_seed(0))
    model = Wrapped(nn.Identity(), lambda x: x)
    labels = torch.full((6, 7), 255)
    labels[:, :5] = torch.arange(5) % 4
    loss = nn.CrossEntropyLoss(ignore_index=255)
    with pytest.raises(DataError, match="labels run from 0 to 255"):
        Objective.check(nn.CrossEntropyLoss(), model, Samples(logits, labels), labels)
    objective = Objective.check(loss, model, Samples(logits, labels), labels, draws=True)
    drawn = objective.sample_targets(logits, labels, torch.Generator().manual_seed(0))
    assert torch.equal(drawn == 255, labels == 255)
    assert drawn[labels != 255].max() <= 3


def test_models_cache_nothing_while_they_are_pruned(toy):
    class Config:
        use_cache = True

    toy.model.config = Config()
    seen = []
    toy.model.register_forward_pre_hook(lambda m, args: seen.append(m.config.use_cache))
    Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss)
    assert not any(seen)
    assert seen
    assert toy.model.config.use_cache


def test_a_loss_that_draws_no_targets_is_refused_before_any_pass(toy):
    def hinge(outputs, targets):
        return nn.functional.multi_margin_loss(outputs, targets)

    calls = []
    toy.model.register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    with pytest.raises(DataError, match="curvature='empirical'"):
        Pruner(**QUICK, curvature="monte-carlo").prune(toy.model, toy.batches, hinge)
    assert len(calls) <= 5  # the few samples that the loss is tried on
    assert all(torch.equal(before[n], v) for n, v in toy.model.state_dict().items())
    Pruner(**QUICK, curvature="empirical").prune(toy.model, toy.batches, hinge)
