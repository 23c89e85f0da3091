"""Tasks by name, and the garment classifier's data."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from icbs import ConfigError, DataError
from icbs.tasks import fashion_mnist, garment, load_task


def write_idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    header = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the real one, with ten blurred classes of 28 × 28."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 200, (10, 28, 28))
    for kind, count in (("train", 1500), ("t10k", 300)):
        labels = rng.integers(0, 10, count)
        images = centres[labels] + rng.integers(0, 55, (count, 28, 28))
        write_idx(tmp_path / f"{kind}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{kind}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setenv("ICBS_DATA", str(tmp_path))
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_idx_files_read_as_written(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 3, 2))
    write_idx(tmp_path / "a.gz", array)
    assert np.array_equal(fashion_mnist.read_idx(tmp_path / "a.gz").numpy(), array)


@pytest.mark.parametrize("cut", [3, 9, -1])
def test_damaged_idx_files_are_named(tmp_path, cut):
    path = tmp_path / "a.gz"
    write_idx(path, np.zeros((4, 4)))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:cut]))
    with pytest.raises(DataError, match=r"a\.gz is not a readable IDX file"):
        fashion_mnist.read_idx(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"a\.gz is not a readable"):
        fashion_mnist.read_idx(path)
    write_idx(path, np.zeros((4, 4)), kind=13)
    with pytest.raises(DataError, match="unsigned bytes"):
        fashion_mnist.read_idx(path)


def test_named_folder_must_be_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("ICBS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"lacks train-images"):
        fashion_mnist.find()


def test_images_are_scaled_and_flat(data):
    images, labels = fashion_mnist.load("t10k")
    assert images.shape == (300, 784)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert labels.dtype == torch.int64


def test_dense_model_is_trained_once_and_cached(data):
    epochs: list[int] = []
    first = garment.load(epochs=2, report=lambda epoch, loss: epochs.append(epoch))
    assert epochs == [1, 2]
    again = garment.load(epochs=2, report=lambda epoch, loss: epochs.append(epoch))
    assert epochs == [1, 2]
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert first.evaluate(first.model)["accuracy"] > 0.8
    sizes = [m.weight.numel() for m in first.model if isinstance(m, torch.nn.Linear)]
    assert sizes == [401408, 262144, 5120]


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("garments", {}, "unknown task 'garments'; declared tasks: deit, .*garment"),
        ("no.such.module:load", {}, "can't be imported"),
        ("icbs.tasks.garment:nothing", {}, "can't be imported"),
        ("builtins:dict", {}, "not icbs.tasks.Task"),
        ("garment", {"colour": "red"}, "does not take"),
    ],
)
def test_unknown_tasks_are_named(data, name, options, match):
    with pytest.raises(ConfigError, match=match):
        load_task(name, **options)
