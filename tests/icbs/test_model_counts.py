"""Counts of parameters and MACs agree with counts by hand; latency tables are sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from icbs.structure import cut, find_dimensions
from icbs.structure.counts import count
from icbs.structure.latency import latencies, latency_tables
from tests.icbs import structured_models

Sizes = st.integers(1, 9)


@given(Sizes, Sizes, Sizes, st.booleans())
@settings(deadline=None, max_examples=20)
def test_linear(batch: int, inputs: int, outputs: int, bias: bool) -> None:
    found = count(nn.Linear(inputs, outputs, bias=bias), torch.randn(batch, inputs))
    assert found.macs == batch * inputs * outputs
    assert found.parameters == inputs * outputs + bias * outputs


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2), (4, 1)])
def test_convolutions(groups: int, stride: int) -> None:
    layer = nn.Conv2d(4, 8, 3, stride=stride, padding=1, groups=groups)
    positions = (6 // stride) ** 2
    assert count(layer, torch.randn(2, 4, 6, 6)).macs == 2 * positions * 8 * (4 // groups) * 9


def test_attention_and_neurons_of_bert() -> None:
    model, inputs = structured_models.make("bert")
    positions, width, neurons, batch, layers = 7, 24, 40, 2, 3
    projections = 4 * positions * width**2
    attention = 2 * positions**2 * width
    layer = projections + attention + 2 * positions * width * neurons
    head = width**2 + 2 * width
    assert count(model, inputs).macs == batch * (layers * layer + head)


@pytest.mark.parametrize("name", ["gpt2", "llama", "encoder"])
def test_attention_is_counted(name: str) -> None:
    model, inputs = structured_models.make(name)
    linear = sum(
        m.weight.numel()
        for m in model.modules()
        if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"
    )
    shape = inputs.shape[:2] if name == "encoder" else inputs["input_ids"].shape
    if name == "encoder":  # its projections are a parameter of nn.MultiheadAttention
        linear += sum(p.numel() for n, p in model.named_parameters() if n.endswith("proj_weight"))
    layers, width = (2, 6) if name == "encoder" else (3, 24)
    expected = shape[0] * shape[1] * linear + layers * 2 * shape[0] * shape[1] ** 2 * width
    assert count(model, inputs).macs == expected


def test_latency_tables_are_monotonic_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    model, inputs = structured_models.make("bert")
    dimensions = find_dimensions(model, inputs)
    rest, tables = latency_tables(model, dimensions, inputs)
    assert set(tables) == {d.name for d in dimensions}
    for dimension in dimensions:
        numbers, seconds = tables[dimension.name]
        assert numbers[0] == seconds[0] == 0
        assert numbers[-1] == dimension.groups
        assert (np.diff(numbers) > 0).all()
        assert (np.diff(seconds) >= 0).all()
    assert tables[dimensions[0].name] is not tables[dimensions[1].name]
    assert rest >= 0
    (file,) = (tmp_path / "latency").iterdir()
    again = latency_tables(model, dimensions, inputs)
    assert again[0] == rest
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        latency_tables(model, dimensions, inputs)
    finally:
        torch.set_num_threads(threads)
    assert len(list((tmp_path / "latency").iterdir())) == 2
    assert file.is_file()


def test_a_larger_model_takes_longer() -> None:
    model = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 64)).eval()
    dimensions = find_dimensions(model)
    small = cut(model, dimensions, {dimensions[0].name: torch.arange(4096) < 256})
    inputs = torch.randn(64, 64)
    with torch.no_grad():
        found = latencies({"dense": lambda: model(inputs), "cut": lambda: small(inputs)})
    assert found["cut"] < found["dense"] / 2
