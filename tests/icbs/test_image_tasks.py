"""The vision tasks: a DeiT trained on the spot, and convolutions without hidden padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from icbs import Pruner
from icbs.tasks import deit, efficientnet, load_task
from icbs.tasks.deit import image_task

KINDS = 10


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images of ten kinds, told apart by how bright they are, and a cache of one's own."""
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))

    def load(kind):
        generator = torch.Generator().manual_seed(len(kind))
        labels = torch.randint(KINDS, (600 if kind == "train" else 200,), generator=generator)
        images = 0.1 * torch.rand(len(labels), 784, generator=generator)
        return images + labels[:, None] / KINDS, labels

    monkeypatch.setattr(deit.fashion_mnist, "load", load)


def test_a_transformer_is_trained_once_and_pruned(data, monkeypatch):
    for name, value in {"WIDTH": 24, "DEPTH": 1, "BATCH": 20, "RATE": 1e-2}.items():
        monkeypatch.setattr(deit, name, value)
    seen: dict[int, float] = {}
    task = load_task("deit", epochs=4, report=seen.__setitem__)
    again = load_task("deit", epochs=4, report=seen.clear)
    assert list(seen) == [1, 2, 3, 4]
    assert seen[4] < seen[1] / 2
    for name, value in task.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    dense = task.evaluate(task.model)
    assert dense["accuracy"] > 0.5
    assert dense["loss"] == pytest.approx(float(task.losses(task.model).mean()), rel=1e-4)
    result = Pruner(
        density=0.2, passes=3, block_size=128, gradient_samples=200, curvature_samples=100,
        acceptance_samples=200,
    ).prune(task.model, task.batches, task.loss)  # fmt: skip
    assert "deit.layers.0.attention.q_proj" in result.masks
    assert result.loss < result.initial_loss
    assert result.density == pytest.approx(0.2, abs=1e-3)


def test_shares_of_the_classes_are_targets_too():
    model, images = nn.Linear(5, 3), torch.randn(40, 5)
    with torch.no_grad():
        own = model(images).softmax(dim=1)
    task = image_task("own", model, [(images, own)], images, own)
    figures = task.evaluate(model)
    assert figures["accuracy"] == 1
    entropy = -(own * own.log()).sum(dim=1)
    assert torch.allclose(task.losses(model).float(), entropy, atol=1e-5)
    assert figures["loss"] == pytest.approx(float(entropy.mean()), rel=1e-5)


class Padded(nn.Conv2d):
    """Pads its own input, more at the end than at the beginning."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x):
        return F.conv2d(
            self.static_padding(x), self.weight, self.bias, self.stride, 0, 1, self.groups
        )


@torch.no_grad()
def test_padding_becomes_a_step_of_its_own_and_changes_nothing():
    model = nn.Sequential(
        Padded(3, 8, 3, stride=2),
        nn.ReLU(),
        Padded(8, 8, 3, groups=8, bias=False),
        nn.Conv2d(8, 4, 1),
    )
    images = torch.randn(2, 3, 9, 9)
    before = model(images)
    efficientnet._unfold_padding(model)
    assert torch.equal(model(images), before)
    assert {type(m) for m in model.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}


@pytest.mark.slow  # fetches 19 MB
@torch.no_grad()
def test_the_trained_network_knows_its_photographs(monkeypatch):
    model = efficientnet.network()
    images, labels = efficientnet.imagenet()
    assert images.shape == (20, 3, 224, 224)
    assert (model(images).argmax(dim=1) == labels).float().mean() >= 0.8
