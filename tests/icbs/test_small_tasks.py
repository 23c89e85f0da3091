"""The tasks ``digits`` and ``tiny``: real data in the package, small enough for proofs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from icbs import DataError
from icbs.zoo import load_task
from icbs.zoo.digits import TINY_DIGITS
from icbs.zoo.optical_digits import load_digits, pooled, split


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and no other data."""
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ICBS_DATA", str(tmp_path / "absent"))
    return tmp_path / "cache"


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    images, labels = load_digits()
    assert np.array_equal((16 * images).numpy(), theirs.images)
    assert np.array_equal(labels.numpy(), theirs.target)


def test_features_are_averages_of_squares_and_standardised_by_the_training_samples():
    images, labels = load_digits()
    quarters = pooled(images, 4)
    assert quarters.shape == (1797, 4)
    assert torch.allclose(quarters[:, 1], images[:, :4, 4:].mean(dim=(1, 2)))
    assert torch.equal(pooled(images, 1), images.flatten(1))
    (features, classes), (test_features, test_classes) = split(quarters, labels)
    assert torch.allclose(features.mean(dim=0), torch.zeros(4).double(), atol=1e-12)
    assert torch.allclose(features.std(dim=0), torch.ones(4).double())
    assert len(classes) + len(test_classes) == 1797
    # A division: no sample twice, and all are there.
    together = torch.cat([features, test_features]) * quarters[:1].std().new_ones(4)
    assert len(together.unique(dim=0)) == len(quarters.unique(dim=0))
    assert torch.equal(torch.cat([classes, test_classes]).bincount(), labels.bincount())


@pytest.mark.parametrize(
    ("name", "weights", "classes", "accuracy"), [("digits", 208, 10, 0.8), ("tiny", 24, 4, 0.9)]
)
def test_the_model_is_trained_once_and_the_same_each_time(name, weights, classes, accuracy, cache):
    epochs: list[int] = []
    first = load_task(name, report=lambda epoch, loss: epochs.append(epoch))
    assert epochs == list(range(1, 61))
    again = load_task(name, report=lambda epoch, loss: epochs.append(epoch))
    assert len(epochs) == 60
    (path,) = cache.glob(f"{name}-*.safetensors")
    path.unlink()
    anew = load_task(name)
    for task in (again, anew):
        for key, value in first.model.state_dict().items():
            assert torch.equal(task.model.state_dict()[key], value)
    linear = [m for m in first.model if isinstance(m, nn.Linear)]
    assert sum(m.weight.numel() for m in linear) == weights
    assert linear[-1].out_features == classes
    figures = first.evaluate(first.model)
    assert figures["accuracy"] > accuracy
    assert 0 < figures["accuracy_standard_error"] < 0.03
    ((inputs, targets),) = first.batches
    assert inputs.dtype == torch.float64
    assert set(targets.tolist()) == set(range(classes))
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="remove it to train the model again"):
        load_task(name)


def test_tiny_tells_four_of_the_digits_apart():
    _, labels = load_digits()
    task = load_task("tiny", epochs=1)
    ((_, targets),) = task.batches
    chosen = sum(int((labels == digit).sum()) for digit in TINY_DIGITS)
    assert len(targets) == round(0.75 * chosen)
    assert "24 weights" in task.about
