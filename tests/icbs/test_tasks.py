"""Tasks by name, and the garment classifier's data."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from icbs import ConfigError, DataError
from icbs.zoo import fashion_mnist, garment, load_task


def write_idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    header = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with Fashion-MNIST's file names and ten blurred classes."""
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


def packed(path: Path, header: bytes, zeros: int) -> Path:
    """A header followed by some mebibytes of zeros."""
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(zeros):
            file.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize(
    ("shape", "zeros", "match"),
    [
        ((1 << 31,), 0, "header says 2147483648 bytes, more than the allowed 67108864"),
        ((1 << 16, 1 << 16), 0, "header says 4294967296 bytes"),
        ((1000,), 200, r"says shape \(1000,\), but it does not have 1000 bytes"),
        ((1 << 20,) * 3, 1, "header says"),
    ],
)
def test_large_declared_sizes_are_refused_before_unpacking(tmp_path, shape, zeros, match):
    path = packed(
        tmp_path / "a.gz", struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape), zeros
    )
    tracemalloc.start()
    with pytest.raises(DataError, match=match):
        fashion_mnist.read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_damage_within_the_packed_data_is_named(tmp_path):
    path = tmp_path / "a.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 256, (50, 28, 28)))
    whole = path.read_bytes()
    for at in range(12, len(whole), 997):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"a\.gz is not a"):
            fashion_mnist.read_idx(path)


def test_images_and_labels_must_be_those_of_fashion_mnist(data):
    write_idx(data / "t10k-labels-idx1-ubyte.gz", np.full(300, 10))
    with pytest.raises(DataError, match="has the label 10; Fashion-MNIST has 0 … 9"):
        fashion_mnist.load("t10k")
    write_idx(data / "t10k-images-idx3-ubyte.gz", np.zeros((300, 28, 27)))
    with pytest.raises(DataError, match=r"images of shape \(300, 28, 27\)"):
        fashion_mnist.load("t10k")


def test_a_damaged_model_in_the_cache_is_named(data):
    task = garment.load(epochs=1)
    (path,) = (data / "cache").glob("garment-*.safetensors")
    whole = path.read_bytes()
    for spoilt in (whole[:100], b"", whole[:-1], whole.replace(b"0.weight", b"9.weight", 1)):
        path.write_bytes(spoilt)
        with pytest.raises(DataError, match="remove it to train the model again"):
            garment.load(epochs=1)
    path.unlink()
    assert garment.load(epochs=1).evaluate(task.model)["loss"] > 0


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
        (
            "garments",
            {},
            "unknown task 'garments' .did you mean 'garment'.*declared tasks: deit, .*garment",
        ),
        ("no.such.module:load", {}, "can't be imported"),
        ("icbs.zoo.garment:nothing", {}, "can't be imported"),
        ("builtins:dict", {}, "not icbs.zoo.Task"),
        ("garment", {"colour": "red"}, "does not accept the options"),
    ],
)
def test_unknown_tasks_are_named(data, name, options, match):
    with pytest.raises(ConfigError, match=match):
        load_task(name, **options)
