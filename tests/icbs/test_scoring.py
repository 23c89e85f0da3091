"""Standard errors of test figures, held against bootstraps and a formula."""

from __future__ import annotations

import pytest
import torch

from icbs.zoo.scoring import classification


def test_standard_errors_are_those_of_a_bootstrap():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(400, 5, generator=generator)
    targets = torch.randint(5, (400,), generator=generator)
    found = classification(outputs, targets)
    p = found["accuracy"]
    assert found["accuracy_standard_error"] == pytest.approx((p * (1 - p) / 400) ** 0.5)
    draws = torch.randint(400, (3000, 400), generator=generator)
    losses = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    spread = float(losses[draws].mean(dim=1).std())
    assert found["loss_standard_error"] == pytest.approx(spread, rel=0.05)
    assert found["loss"] == pytest.approx(float(losses.mean()))


def test_targets_may_be_probabilities():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    found = classification(outputs, outputs.softmax(1), torch.tensor([0, 0]))
    assert found["accuracy"] == 0.5
