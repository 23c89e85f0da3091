"""Statistics of batch normalisation, corrected against the dense model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from icbs import LayerError, recover
from icbs.recovery.statistics import correct, input_moments, moments_of
from icbs.recovery.subject import normalisations


def convolutional(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).double()
        for _ in range(20):  # statistics of other samples than those of the recovery
            model(torch.randn(32, 3, 6, 6, dtype=torch.float64) * 1.5 + 0.3)
        for module in normalisations(model).values():
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


def images(count: int = 60) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, 3, 6, 6, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return [(x, convolutional()(x).argmax(dim=1))]


def random_masks(model: nn.Module, share: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.rand(module.weight.shape, generator=generator) < share
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def test_a_distorted_channel_is_restored_exactly():
    """An affine change of each channel is undone."""
    torch.manual_seed(0)
    dense = nn.BatchNorm2d(5).double().eval()
    dense.running_mean.copy_(torch.randn(5))
    dense.running_var.copy_(torch.rand(5) + 0.5)
    nn.init.normal_(dense.weight)
    x = torch.randn(30, 5, 4, 4, dtype=torch.float64)
    slope = torch.linspace(0.5, 2, 5, dtype=torch.float64).view(5, 1, 1)
    changed = slope * x + torch.randn(5, 1, 1, dtype=torch.float64)
    module = copy.deepcopy(dense)
    correct(module, dense, moments_of(changed), moments_of(x))
    torch.testing.assert_close(module(changed), dense(x))
    before = copy.deepcopy(module.state_dict())
    correct(module, dense, moments_of(changed), moments_of(x))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_dead_and_exploding_channels_stay_within_limits():
    dense = nn.BatchNorm1d(3).double().eval()
    x = torch.randn(50, 3, dtype=torch.float64)
    changed = x.clone()
    x[:, 0] = 2.0  # no variance in the dense model
    changed[:, 1] = 0.0  # none in the pruned one
    changed[:, 2] *= 1e6
    module = copy.deepcopy(dense)
    correct(module, dense, moments_of(changed), moments_of(x))
    ratio = ((module.running_var + dense.eps) / (dense.running_var + dense.eps)).sqrt()
    torch.testing.assert_close(ratio, torch.tensor([1.0, 0.2, 5.0], dtype=torch.float64))
    assert torch.isfinite(module.running_mean).all()


def test_an_unpruned_model_is_unchanged():
    model = convolutional()
    moments = input_moments(model, images()[0][0])
    for name, module in normalisations(model).items():
        other = copy.deepcopy(module)
        correct(other, module, moments[name], moments[name])
        torch.testing.assert_close(other.running_mean, module.running_mean)
        torch.testing.assert_close(other.running_var, module.running_var)


def test_each_normalisation_sees_what_the_corrected_ones_before_it_compute():
    model, dense = convolutional(), convolutional()
    masks = random_masks(model, 0.5)
    result = recover(model, masks, images(), nn.CrossEntropyLoss(), method="statistics")
    assert result.loss < result.initial_loss
    assert result.method == "statistics"
    x = images()[0][0][torch.randperm(60, generator=torch.Generator().manual_seed(0))][12:]
    before, after = input_moments(dense, x), input_moments(model, x)
    for name, module in normalisations(model).items():
        reference = normalisations(dense)[name]
        for (mean, variance), owner in ((before[name], reference), (after[name], module)):
            scale = (owner.running_var + owner.eps).sqrt()
            found = (mean - owner.running_mean) / scale, variance.sqrt() / scale
            if owner is reference:
                expected = found
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_other_methods_correct_the_statistics_too():
    for wanted in (True, False):
        model = convolutional()
        result = recover(
            model,
            random_masks(model, 0.5),
            images(),
            nn.CrossEntropyLoss(),
            method="least-squares",
            statistics=wanted,
        )
        labels = [row.label for row in result.history]
        assert ("batch statistics" in labels) == wanted
        assert result.loss < result.initial_loss
        before = convolutional().state_dict()
        moved = [
            name
            for name, value in model.state_dict().items()
            if "running" in name and not torch.equal(value, before[name])
        ]
        assert bool(moved) == wanted


def test_a_model_without_batch_normalisation_is_refused_by_name(toy):
    masks = {"0": torch.rand(20, 12) < 0.5}
    with pytest.raises(LayerError, match="statistics corrects batch normalisation"):
        recover(toy.model, masks, toy.batches, toy.loss, method="statistics")
