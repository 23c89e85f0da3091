"""Layers that are pruned by default, and weights that are not plain numbers."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from typer.testing import CliRunner

from icbs import LayerError, PrunerConfig
from icbs.cli import app
from icbs.model.finding import find_layers


class Language(nn.Module):
    """Embedding, body and head; tied or not."""

    def __init__(self, *, tied: bool, head: str = "lm_head") -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.body = nn.Linear(6, 6)
        self.add_module(head, nn.Linear(6, 9, bias=False))
        if tied:
            self.get_submodule(head).weight = self.embed.weight


class Declared(Language):
    def get_output_embeddings(self) -> nn.Module:
        return self.get_submodule("predictor")


def names(model: nn.Module, **settings: object) -> list[str]:
    return [x.name for x in find_layers(model, PrunerConfig.of(density=0.5, **settings))]


@pytest.mark.parametrize(
    "model",
    [
        Language(tied=True),
        Language(tied=False),
        Language(tied=True, head="out"),
        Declared(tied=False, head="predictor"),
    ],
)
def test_output_embeddings_are_left_out_and_logged(model, caplog):
    with caplog.at_level(logging.INFO, logger="icbs"):
        assert names(model) == ["body"]
    assert "is left dense: it is the output embedding" in caplog.text


def test_a_pattern_may_name_them():
    assert names(Language(tied=False), include=["*", "lm_head"]) == ["body", "lm_head"]
    with pytest.raises(LayerError, match=r"'lm_head' shares its weights \(embed.weight, lm_head"):
        names(Language(tied=True), include=["body", "*head"])


def test_frozen_weights_are_pruned_too():
    model = Language(tied=True).requires_grad_(False)
    assert names(model) == ["body"]


def test_weights_that_are_computed_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    prune.l1_unstructured(model[1], "weight", 0.5)
    with pytest.raises(LayerError, match="'1' computes its weight"):
        names(model)
    assert names(model, exclude=["1"]) == ["0"]
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(LayerError, match="'0' computes its weight"):
        names(model)


def test_weights_that_were_never_loaded_are_refused():
    with pytest.raises(LayerError, match="'0' has its weights on the meta device"):
        names(nn.Sequential(nn.Linear(4, 4, device="meta")))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype):
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.zeros(4, 4).to(dtype), requires_grad=False)
    with pytest.raises(LayerError, match="'0' has quantised weights"):
        names(model)


class Own(nn.Linear):
    """A subclass of a linear layer."""


def mixed() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 8), Own(8, 6), nn.Linear(6, 4)
    )


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"include": "Conv2d"}, ["0"]),
        ({"include": "Own"}, ["3"]),
        ({"include": ["Linear"]}, ["2", "3", "4"]),
        ({"exclude": "Linear"}, ["0"]),
        ({"exclude": "4"}, ["0", "2", "3"]),
        ({"include": ["Conv2d", "3"]}, ["0", "3"]),
        ({"densities": {"4": 1.0}}, ["0", "2", "3"]),
        ({"densities": {"Linear": 1, "4": 0.25}}, ["0", "4"]),
    ],
)
def test_layers_are_chosen_by_name_type_and_density(settings, names):
    found = find_layers(mixed(), PrunerConfig.of(density=0.5, **settings))
    assert [layer.name for layer in found] == names


def test_a_density_of_a_type_is_that_of_its_layers():
    config = PrunerConfig.of(density=0.5, densities={"Linear": 0.25, "Own": 0.75})
    found = {layer.name: layer.density for layer in find_layers(mixed(), config)}
    assert found == {"0": 0.5, "2": 0.25, "3": 0.75, "4": 0.25}


def test_a_pattern_without_matches_suggests_the_nearest():
    with pytest.raises(LayerError, match="did you mean 'Conv2d'"):
        find_layers(mixed(), PrunerConfig.of(density=0.5, include="Conv2D"))


def test_the_command_lists_layers_with_their_sizes():
    listed = CliRunner().invoke(app, ["layers", "tests.icbs.test_cli:load"])
    assert listed.exit_code == 0, listed.output
    for words in ("20 × 12", "16 × 20", "4 × 16", "3 layers with 624 weights"):
        assert words in listed.output
    chosen = CliRunner().invoke(
        app, ["layers", "tests.icbs.test_cli:load", "--set", "exclude=4", "--set", "density=0.5"]
    )
    assert "2 layers with 560 weights; density 0.5 keeps 280 of them" in chosen.output
    assert "4.weight (64)" in chosen.output
