"""Reports of the weights that a density does not cover: left dense, zero already, default."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from icbs import CausalLMLoss, DensityWarning, LayerError, Pruner, PrunerConfig
from icbs.cli import app
from icbs.layerwise import prune_layerwise
from icbs.model.coverage import Coverage, density_in_words
from icbs.model.finding import find_layers
from icbs.zoo import Task
from tests.icbs.architectures import make
from tests.icbs.conftest import Toy, make_toy

SETTINGS: dict[str, Any] = {"density": 0.5, "passes": 1, "block_size": 16}
IDS = torch.randint(3, 60, (12, 8), generator=torch.Generator().manual_seed(0))


def test_experts_in_one_parameter_are_named_with_their_sizes(tmp_path, caplog):
    model = make("mixtral").float()
    with (
        caplog.at_level(logging.INFO, logger="icbs"),
        pytest.warns(DensityWarning, match="layers of unsupported types.*experts.gate_up_proj"),
    ):
        result = Pruner(**SETTINGS).prune(
            model, [({"input_ids": IDS}, IDS)], CausalLMLoss(), run=tmp_path / "run"
        )
    state = {name: p.numel() for name, p in model.named_parameters() if p.ndim > 1}
    pruned = {f"{name}.weight" for name in result.masks}
    expected = {name: size for name, size in state.items() if name not in pruned}
    assert result.left_dense == expected
    assert "model.layers.0.mlp.experts.down_proj" in expected
    assert next(iter(result.left_dense.values())) == max(expected.values())
    zeros = sum(int((model.get_parameter(name) == 0).sum()) for name in pruned)
    assert result.density == 0.5
    assert result.model_density == pytest.approx(1 - zeros / sum(state.values()))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["left_dense"] == expected
    assert summary["model_density"] == result.model_density
    assert f"{sum(expected.values()):,}" in caplog.text
    words = density_in_words(summary)
    assert f"of {sum(m.numel() for m in result.masks.values()):,} weights kept in" in words
    assert f"{sum(expected.values()):,} matrix weights are left dense: " in words
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "run")], catch_exceptions=False)
    assert words.split(": ")[0] in " ".join(shown.output.split())


def test_stacks_of_experts_are_left_whole_with_the_reason():
    model = make("mixtral").float()
    found = Coverage.of(model, find_layers(model, PrunerConfig(density=0.5)))
    experts = {name for name, p in model.named_parameters() if p.ndim == 3}
    assert set(found.stacks) == experts
    assert set(found.stacks.values()) == {model.config.num_local_experts}
    for name in found.left_dense:
        assert ("give each its own nn.Linear" in found.reason(name)) == (name in experts)
    with pytest.warns(DensityWarning, match=r"gate_up_proj: \d matrices in one parameter"):
        found.report(find_layers(model, PrunerConfig(density=0.5)), PrunerConfig(density=0.5))
    result = CliRunner(env={"COLUMNS": "300"}).invoke(
        app, ["layers", "tests.icbs.test_coverage:mixtral_task", "--all"]
    )
    for name in experts:
        line = next(line for line in result.stdout.splitlines() if f"  {name} (" in line)
        assert "such as experts, which are not called as layers" in line
    assert "model.embed_tokens.weight" in result.stdout
    assert Coverage.of(Zoo(), []).stacks == {}


class Zoo(nn.Module):
    """Prunable layers, an embedding, and unsupported modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(1, 1, 2)
        self.scale = nn.Parameter(torch.ones(1, 1, 8))
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(self.embed(x))[0] * self.scale
        x = self.conv(self.attention(x, x, x)[0].mT).mT
        x = self.up(x[:, None])[:, 0, :-1, :-1]
        return self.head(self.body(x).relu()).mean(dim=1)


def zoo_data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(9, (24, 5), generator=generator)
    return [(x, torch.randint(3, (24,), generator=generator))]


def test_unsupported_parameters_are_distinguished_from_excluded_ones():
    model = Zoo()
    layers = find_layers(model, PrunerConfig(density=0.5))
    assert [layer.name for layer in layers] == ["body", "head"]
    found = Coverage.of(model, layers)
    assert found.unsupported == {
        "lstm.weight_ih_l0": 256,
        "lstm.weight_hh_l0": 256,
        "attention.in_proj_weight": 192,
        "conv.weight": 192,
        "attention.out_proj.weight": 64,
        "up.weight": 4,
    }
    assert found.left_dense == found.unsupported | {"embed.weight": 72}
    assert found.pruned == 64 + 24
    assert found.density(44) == (44 + 1036) / (88 + 1036)
    # Excluded by name: left dense, but it could be pruned.
    (body,) = find_layers(model, PrunerConfig(density=0.5, exclude=["head"]))
    found = Coverage.of(model, [body])
    assert "head.weight" in found.left_dense
    assert "head.weight" not in found.unsupported


def test_models_with_attention_of_torch_are_pruned_and_report_dense_weights(caplog):
    """The output projection's weight is used without a call, so that no hook runs."""
    for use in (
        lambda: Pruner(**SETTINGS).prune(Zoo(), zoo_data(), nn.CrossEntropyLoss()),
        lambda: prune_layerwise(Zoo(), zoo_data(), "wanda", density=0.5),
    ):
        caplog.clear()
        with (
            caplog.at_level(logging.INFO, logger="icbs"),
            pytest.warns(DensityWarning, match=r"92% of the weights.*lstm.weight_ih_l0 \(256\)"),
        ):
            found = use()
        assert set(found.masks) == {"body", "head"}
        assert "attention.out_proj is left dense: it is a part of nn.Multihead" in caplog.text
        assert found.model_density == (44 + 1036) / (88 + 1036)
        assert found.left_dense["attention.out_proj.weight"] == 64
    with pytest.raises(LayerError, match="'attention.out_proj' never runs"):
        find_layers(Zoo(), PrunerConfig(density=0.5, include=["*", "*out_proj"]))
    broad = PrunerConfig(density=0.5, include=["re:(body|attention.out_proj)"])
    assert [layer.name for layer in find_layers(Zoo(), broad)] == ["body"]


class Projecting(nn.MultiheadAttention):
    """Attention that calls its output projection."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(x)


def test_attention_that_runs_its_projection_is_pruned():
    model = nn.Sequential(Projecting(12, 2), nn.Linear(12, 4))
    toy = make_toy()
    found = prune_layerwise(model, toy.batches, "wanda", density=0.5)
    assert set(found.masks) == {"0.out_proj", "1"}


def test_nothing_is_reported_for_a_model_pruned_as_a_whole(toy, caplog):
    with caplog.at_level(logging.INFO, logger="icbs"), warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss)
    assert result.left_dense == {}
    assert result.model_density == result.density
    assert result.kept_zeros == 0
    assert "dense" not in caplog.text.replace("dense weights and masks", "")


# -- zeros before pruning -----------------------------------------------------------------


def thinned(share: float) -> Toy:
    """A toy with the smallest weights of each layer set to zero."""
    toy = make_toy()
    with torch.no_grad():
        for parameter in toy.model.parameters():
            if parameter.ndim > 1:
                flat = parameter.view(-1)
                flat[flat.abs().argsort()[: round(share * len(flat))]] = 0
    return toy


def test_zeros_that_masks_must_keep_are_reported_and_counted():
    toy = thinned(0.7)
    dense = {name: toy.model.get_submodule(name).weight.detach().clone() for name in "024"}
    with pytest.warns(
        DensityWarning, match="70.0% of the weights to prune are 0 already.*: 0, 2, 4 have"
    ):
        result = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss)
    kept = sum(int((mask & (dense[name] == 0)).sum()) for name, mask in result.masks.items())
    assert result.kept_zeros == kept > 0
    assert result.density == 0.5
    assert f"{kept:,} of the kept weights were 0 already" in density_in_words(result.summary())


def test_zeros_that_masks_can_prune_are_reported_and_pruned_first(caplog):
    toy = thinned(0.2)
    with caplog.at_level(logging.INFO, logger="icbs"), warnings.catch_warnings():
        warnings.simplefilter("error", DensityWarning)
        result = Pruner(**SETTINGS | {"passes": 0}).prune(toy.model, toy.batches, toy.loss)
    assert "20.0% of the weights to prune are 0 already" in caplog.text
    assert result.kept_zeros == 0
    chance = Pruner(**SETTINGS | {"passes": 0, "initial": "random"})
    toy = thinned(0.2)
    assert chance.prune(toy.model, toy.batches, toy.loss).kept_zeros > 20


# -- default densities ---------------------------------------------------------------------


def test_layers_without_an_entry_in_densities_are_named(toy):
    with pytest.warns(
        DensityWarning, match="no pattern for 4: they get the default density of 0.1"
    ):
        Pruner(densities={"0": 0.5, "2": 0.5}, passes=0).prune(toy.model, toy.batches, toy.loss)


def test_no_warning_where_density_is_set_for_the_other_layers():
    toy = make_toy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DensityWarning)
        Pruner(density=0.4, densities={"0": 0.5}, passes=0).prune(toy.model, toy.batches, toy.loss)


def test_a_global_budget_that_empties_or_fills_a_layer_warns(toy, caplog, monkeypatch):
    monkeypatch.setattr("icbs.selection.allocation.ALLOCATION_FLOOR", 0.0)
    with torch.no_grad():
        toy.model[0].weight.mul_(1e-3)
        toy.model[4].weight.mul_(1e3)
    settings = {"density": 0.4, "passes": 0, "allocation": "global"}
    with (
        caplog.at_level(logging.INFO, logger="icbs"),
        pytest.warns(DensityWarning) as caught,
    ):
        result = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    texts = [str(w.message) for w in caught if w.category is DensityWarning]
    assert any("leaves 0 with nothing, or a single weight" in text for text in texts)
    assert any("leaves 4 with all their weights, or all but one" in text for text in texts)
    assert int(result.masks["0"].sum()) == 1
    assert int(result.masks["4"].sum()) == 63
    assert "densities from 0.00417 (0) to 0.984 (4)" in caplog.text


def test_masks_that_keep_nothing_of_a_layer_warn(toy):
    masks = {name: torch.zeros_like(toy.model.get_submodule(name).weight).bool() for name in "024"}
    masks["2"].fill_(True)
    kept = 320 / (240 + 320 + 64)
    with pytest.warns(DensityWarning) as caught:
        result = Pruner(density=kept, allocation="global", passes=1).prune(
            toy.model, toy.batches, toy.loss, masks=masks
        )
    texts = [str(w.message) for w in caught if w.category is DensityWarning]
    assert any("leaves 0, 4 with nothing" in text for text in texts)
    assert any("leaves 2 with all" in text for text in texts)
    assert all(torch.equal(result.masks[name], mask) for name, mask in masks.items())


def mixtral_task() -> Task:
    """A task with experts in one parameter."""
    batches = [({"input_ids": IDS}, IDS)]
    return Task("experts", make("mixtral").float(), batches, CausalLMLoss(), lambda model: {})


def load_zoo() -> Task:
    """A user's task, named as ``tests.icbs.test_coverage:load_zoo``."""
    torch.manual_seed(0)
    return Task("zoo", Zoo().eval(), zoo_data(), nn.CrossEntropyLoss(), lambda model: {"loss": 1.0})


def test_the_command_line_reports_which_weights_the_density_counts(tmp_path):
    arguments = ["prune", "--task", "tests.icbs.test_coverage:load_zoo", "--density", "0.5"]
    arguments += ["--passes", "1", "--run", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "DensityWarning: 92% of the weights are in layers of unsupported types" in text
    kept = "44 of 88 weights kept in 2 layers (density 0.5000)"
    assert f"{kept}; 1,036 matrix weights are left" in text
    assert "over all matrix weights the density is 0.9609" in text
