"""Cut models are saved and loaded, by transformers where its configuration holds the widths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from icbs.data.pytree import call
from icbs.errors import LayerError, ModelError, RunFolderError
from icbs.structure import (
    Dimension,
    cut,
    find_dimensions,
    load_cut,
    load_kept,
    save_cut,
    save_kept,
)
from icbs.structure.outputs import output_tensors
from tests.icbs import structured_models


def uniform(dimensions: list[Dimension]) -> dict[str, Tensor]:
    """Keep every second group."""
    return {d.name: torch.arange(d.groups) % 2 == 0 for d in dimensions}


def outputs(model: nn.Module, inputs: object) -> Tensor:
    return output_tensors(call(model, inputs))[0]


def assert_same(one: nn.Module, other: nn.Module, inputs: object) -> None:
    """Compare outputs; sums may be ordered otherwise in tensors at other addresses."""
    assert (outputs(one, inputs) - outputs(other, inputs)).abs().max() <= 1e-12


@pytest.mark.parametrize("name", ["vit", "deit", "llama", "qwen2"])
def test_from_pretrained_loads_uniform_widths(name: str, tmp_path: Path) -> None:
    model, inputs = structured_models.make(name)
    dimensions = find_dimensions(model, inputs)
    small = cut(model, dimensions, uniform(dimensions))
    assert save_cut(small, dimensions, uniform(dimensions), tmp_path) == tmp_path / "pretrained"
    loaded = type(model).from_pretrained(tmp_path / "pretrained", dtype=torch.float64)
    assert_same(loaded, small, inputs)
    assert loaded.config.num_attention_heads < model.config.num_attention_heads
    assert_same(load_cut(model, tmp_path), small, inputs)


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2"])
def test_from_pretrained_loads_fewer_neurons(name: str, tmp_path: Path) -> None:
    model, inputs = structured_models.make(name)
    dimensions = find_dimensions(model, inputs, ("neurons",))
    small = cut(model, dimensions, uniform(dimensions))
    small.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    assert_same(loaded, small, inputs)


def test_from_pretrained_loads_fewer_blocks(tmp_path: Path) -> None:
    model, inputs = structured_models.make("llama")
    dimensions = find_dimensions(model, inputs, ("blocks",))
    small = cut(model, dimensions, {dimensions[1].name: torch.tensor([False])})
    small.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    assert_same(loaded, small, inputs)


def test_uneven_widths_are_refused_by_from_pretrained_alone(tmp_path: Path) -> None:
    model, inputs = structured_models.make("bert")
    dimensions = find_dimensions(model, inputs)
    kept = uniform(dimensions) | {dimensions[1].name: torch.arange(40) < 7}
    small = cut(model, dimensions, kept)
    with pytest.raises(ModelError, match=r"number of neurons.*intermediate.dense: 7.*by layer"):
        small.save_pretrained(tmp_path)
    assert save_cut(small, dimensions, kept, tmp_path).name == "model.safetensors"
    fresh, _ = structured_models.make("bert", seed=3)
    assert_same(load_cut(fresh, tmp_path), small, inputs)


def test_widths_without_an_entry_are_refused(tmp_path: Path) -> None:
    model, inputs = structured_models.make("bert")
    dimensions = find_dimensions(model, inputs, ("heads",))
    small = cut(model, dimensions, uniform(dimensions))
    with pytest.raises(ModelError, match=r"query.weight has shape \(12, 24\) and would be"):
        small.save_pretrained(tmp_path)


def test_a_residual_network_is_loaded(tmp_path: Path) -> None:
    model, inputs = structured_models.make("residual")
    dimensions = find_dimensions(model, inputs, ("channels",))
    small = cut(model, dimensions, uniform(dimensions))
    save_cut(small, dimensions, uniform(dimensions), tmp_path)
    fresh = structured_models.make("residual", seed=5)[0].train()
    assert_same(load_cut(fresh, tmp_path), small, inputs)
    assert fresh.training
    with pytest.raises(LayerError, match="names 'expand'"):
        load_cut(nn.Sequential(nn.Linear(2, 2)), tmp_path)


def test_kept_groups_are_read_as_written(tmp_path: Path) -> None:
    model, inputs = structured_models.make("joined")
    dimensions = find_dimensions(model, inputs)
    kept = uniform(dimensions)
    save_kept(tmp_path, dimensions, kept)
    found, again = load_kept(tmp_path)
    assert [(d.name, d.kind, d.groups, d.floor) for d in found] == [
        (d.name, d.kind, d.groups, d.floor) for d in dimensions
    ]
    for one, other in zip(found, dimensions, strict=True):
        assert torch.equal(again[one.name], kept[one.name])
        for role in ("readers", "writers", "between"):
            for part, expected in zip(getattr(one, role), getattr(other, role), strict=True):
                assert part.module == expected.module
                assert torch.equal(part.index, expected.index)
    path = tmp_path / "groups.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunFolderError, match="not a readable file of kept groups"):
        load_kept(tmp_path)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_biases_that_were_added_to_layers_without_one_are_read(
    name: str, when: str, tmp_path: Path
) -> None:
    """FLAP adds biases, before or after the cut, that the configuration doesn't know."""
    model, inputs = structured_models.make(name)
    reader = "model.layers.1.mlp.down_proj" if name == "llama" else "classifier"
    dimensions = find_dimensions(model, inputs)

    def add_bias(to: nn.Module) -> None:
        layer = to.get_submodule(reader)
        layer.bias = nn.Parameter(torch.linspace(-1, 1, layer.out_features).double())

    if when == "before":
        add_bias(model)
    small = cut(model, dimensions, uniform(dimensions))
    if when == "after":
        add_bias(small)
    save_cut(small, dimensions, uniform(dimensions), tmp_path)
    fresh, _ = structured_models.make(name, seed=3)
    assert_same(load_cut(fresh, tmp_path), small, inputs)
