"""Gradual pruning: the density decreases in steps, around any method."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch

import icbs
from icbs import ConfigError, RunFolderError, prune_in_steps
from icbs.density.mask_maker import METHODS
from icbs.export.compressed import load_compressed
from icbs.layerwise import prune_layerwise
from tests.icbs.conftest import make_toy

FAST = {"passes": 6, "block_size": 64}
pytestmark = pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")


def run(toy, **arguments):
    return prune_in_steps(toy.model, toy.batches, toy.loss, **{"density": 0.2, **arguments})


@pytest.mark.parametrize("method", METHODS)
def test_any_method_ends_exactly_at_the_density(method, tmp_path):
    toy = make_toy()
    arguments = FAST if method == "icbs" else {}
    result = run(toy, steps=3, method=method, run=tmp_path / "r", **arguments)
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert kept == sum(round(0.2 * mask.numel()) for mask in result.masks.values())
    assert result.densities[-1] == 0.2
    assert len(result.densities) == 3
    for name, mask in result.masks.items():
        assert not toy.model.get_submodule(name).weight[~mask].any()
    state, masks = load_compressed(tmp_path / "r" / "compressed.safetensors")
    assert all(torch.equal(mask, masks[name]) for name, mask in result.masks.items())
    assert all(torch.equal(state[name], value) for name, value in toy.model.state_dict().items())


def test_one_step_is_the_method_by_itself():
    for method in ("magnitude", "wanda", "sparsegpt"):
        toy, other = make_toy(), make_toy()
        run(toy, steps=1, method=method)
        prune_layerwise(other.model, other.batches, method, density=0.2)
        for mine, same in zip(toy.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(mine, same)
    toy, other = make_toy(), make_toy()
    found = run(toy, steps=1, **FAST)
    same = icbs.Pruner(density=0.2, **FAST).prune(other.model, other.batches, other.loss)
    assert all(torch.equal(mask, same.masks[name]) for name, mask in found.masks.items())


@pytest.mark.parametrize("method", METHODS)
def test_one_step_with_a_pattern_is_the_method_by_itself(method):
    toy, other = make_toy(), make_toy()
    if method == "icbs":
        found = run(toy, steps=1, constraint="2:4", density=0.5, **FAST)
        same = icbs.Pruner(constraint="2:4", **FAST).prune(other.model, other.batches, other.loss)
    else:
        found = run(toy, steps=1, method=method, constraint="2:4", density=0.5)
        same = prune_layerwise(other.model, other.batches, method, pattern="2:4")
    assert found.density == 0.5
    for name, mask in found.masks.items():
        assert torch.equal(mask, same.masks[name])
        assert (mask.reshape(-1, 4).sum(1) == 2).all()
    for mine, its in zip(toy.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_scope_without_effect_on_a_method_is_refused():
    toy = make_toy()
    with pytest.raises(ConfigError, match="use compare='output'"):
        run(toy, steps=1, method="wanda", constraint="output")
    found = run(make_toy(), steps=1, method="magnitude", compare="output")
    for mask in found.masks.values():
        counts = mask.sum(1)
        assert int(counts.max()) - int(counts.min()) <= 1


def test_masks_by_magnitude_are_nested_and_those_of_one_step():
    seen = []
    toy = make_toy()

    def note(progress) -> None:
        seen.append({n: p.clone() for n, p in progress.model.named_parameters()})

    found = run(toy, steps=[0.6, 0.4, 0.2], method="magnitude", callback=note)
    assert len(seen) == 3
    for before, after in pairwise(seen):
        assert all(not (after[n][before[n] == 0]).any() for n in before)
    one = run(make_toy(), steps=1, method="magnitude")
    assert all(torch.equal(mask, one.masks[name]) for name, mask in found.masks.items())


def test_recovery_follows_each_step(tmp_path):
    run(make_toy(), steps=3, method="magnitude", recover="least-squares", run=tmp_path / "r")
    for step in (1, 2, 3):
        summary = json.loads((tmp_path / "r" / f"step-{step}/recovery/summary.json").read_text())
        assert summary["loss"] <= summary["initial_loss"]


def test_passes_are_shared_by_the_steps_and_pruned_weights_may_return(tmp_path):
    toy, dense = make_toy(), make_toy().model.state_dict()
    run(toy, steps=4, run=tmp_path / "r", **FAST)
    passes, returned = [], 0
    before = None
    for step in range(1, 5):
        folder = tmp_path / "r" / f"step-{step}"
        passes.append(json.loads((folder / "summary.json").read_text())["passes"])
        state, masks = load_compressed(folder / "compressed.safetensors")
        for name, mask in masks.items():
            # Without recovery kept weights have their dense values.
            assert torch.equal(state[f"{name}.weight"][mask], dense[f"{name}.weight"][mask])
            returned += 0 if before is None else int((mask & ~before[name]).sum())
        before = masks
    assert sum(passes) == 6
    assert returned > 0


def test_layers_with_a_density_of_their_own_follow_the_same_course(tmp_path):
    run(make_toy(), steps=2, decay="linear", densities={"4": 0.6, "2": 1.0}, method="wanda",
        run=tmp_path / "r")  # fmt: skip
    _, masks = load_compressed(tmp_path / "r" / "step-1" / "compressed.safetensors")
    assert set(masks) == {"0", "4"}
    assert int(masks["0"].sum()) == round(0.6 * 240)
    assert int(masks["4"].sum()) == round(0.8 * 64)
    _, masks = load_compressed(tmp_path / "r" / "compressed.safetensors")
    assert int(masks["4"].sum()) == round(0.6 * 64)


def test_interrupted_steps_continue_to_the_same_weights(tmp_path):
    arguments = {"steps": 3, "recover": "least-squares", **FAST}
    whole = make_toy()
    run(whole, run=tmp_path / "whole", **arguments)
    count = 0

    def stop(progress) -> None:
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt

    toy = make_toy()
    with pytest.raises(KeyboardInterrupt):
        run(toy, run=tmp_path / "parts", callback=stop, **arguments)
    for mine, dense in zip(toy.model.parameters(), make_toy().model.parameters(), strict=True):
        assert torch.equal(mine, dense)
    run(toy, run=tmp_path / "parts", **arguments)
    for mine, same in zip(toy.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, same)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": [0.5, 0.3]}, "ends at density 0.3, and the run's density is 0.2"),
        ({"steps": [0.2, 0.3, 0.2]}, "must be below the one before"),
        ({"steps": 0}, "steps = 0"),
        ({"decay": "cubicc"}, "did you mean 'cubic'"),
        ({"start_density": 0.1}, "prunes nothing"),
        ({"constraint": "2:4", "density": 0.5}, "fixes the density at 0.5"),
        ({"steps": [0.5, 0.2], "densities": {"4": 0.5}}, "need a number of steps"),
        ({"method": "wanda", "passes": 3}, "passes has no effect"),
    ],
)
def test_bad_input_is_named_before_any_work(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=words):
        run(make_toy(), run=tmp_path / "r", **arguments)
    assert not (tmp_path / "r").exists()


def test_folders_of_other_steps_are_refused(tmp_path):
    run(make_toy(), steps=2, method="wanda", run=tmp_path / "r")
    with pytest.raises(RunFolderError, match="made with another steps"):
        run(make_toy(), steps=3, method="wanda", run=tmp_path / "r")
