"""Density search over groups of weights: resized masks, starts from neighbours, budgets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import icbs
from icbs import ConfigError, LayerError, PrunerConfig, search
from icbs.data.samples import Samples
from icbs.density.mask_maker import share
from icbs.density.resize import resize_groups
from icbs.export.compressed import load_compressed
from icbs.groups.density import number_kept
from icbs.groups.finding import prepare_groups
from icbs.zoo import Task
from tests.icbs.group_models import LOSS, convolutions, perceptron
from tests.icbs.test_cli import icbs as command

MODELS = {"neurons": perceptron(), "channels": convolutions()}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([None, "macs", "parameters"]),
    st.sampled_from(["uniform", "global"]),
    st.lists(st.integers(8, 17), min_size=2, max_size=4),
)
def test_resized_groups_hold_the_share_and_are_nested(kind, quantity, allocation, twentieths):
    model, ((x, y),) = MODELS[kind]
    samples = Samples(x, y)
    before, masks = None, None
    for twentieth in twentieths:
        wanted = share(twentieth / 20, quantity)
        if quantity is None:
            wanted["allocation"] = allocation
        config = PrunerConfig.of(groups=kind, **wanted)
        grouping = prepare_groups(model, samples, config)
        if masks is None:  # all groups kept
            masks = {
                layer.name: torch.ones_like(layer.kind.weight).bool() for layer in grouping.layers
            }
            before = np.zeros(grouping.count)
        masks = resize_groups(model, masks, config, samples)
        state = grouping.state_of(masks)
        if quantity is None:
            for pool in grouping.pools:
                kept = int((state[pool.members] == 0).sum())
                assert kept == number_kept(pool, config)
                old = int((before[pool.members] == 0).sum())
                both = ((state == 0) & (before == 0))[pool.members]
                assert int(both.sum()) == min(kept, old)
        else:
            assert grouping.budget.holds(state)
        for own, span in zip(grouping.sets, grouping.spans, strict=True):
            assert int((state[span] == 0).sum()) >= own.floor
        before = state


def test_groups_without_weight_are_pruned_first():
    model, ((x, y),) = perceptron()
    with torch.no_grad():
        model[2].weight[:, [1, 4, 7]] = 0  # read neurons 1, 4 and 7 of the first dimension
    config = PrunerConfig.of(groups="neurons", density=0.7)
    grouping = prepare_groups(model, Samples(x, y), config)
    full = {layer.name: torch.ones_like(layer.kind.weight).bool() for layer in grouping.layers}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = resize_groups(model, full, config, Samples(x, y))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (~masks["2"]).any(dim=0).nonzero().flatten().tolist() == [1, 4, 7]
    assert int((~masks["4"]).any(dim=0).sum()) == 8 - round(0.7 * 8)


@pytest.mark.parametrize("budget", [None, "macs"])
def test_each_run_starts_from_its_neighbour(tmp_path, budget):
    model, ((x, y),) = perceptron()
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    result = search(
        model,
        [(x[:180], y[:180])],
        LOSS,
        heldout=[(x[180:], y[180:])],
        max_accuracy_loss=0.1,
        groups="neurons",
        budget=budget,
        low=0.3,
        tolerance=0.2,
        passes=2,
        run=tmp_path / "s",
    )
    points = result.curve.points
    assert len(points) > 2
    assert result.density == min(point.density for point in points if point.met)
    words = {None: "the groups", "macs": "the model's MACs"}[budget]
    assert f"density is here the share of {words} that is kept" in str(result)
    clean, _ = perceptron()
    clean.load_state_dict(dense)
    samples = Samples(x[:180], y[:180])
    starts = 0
    for point in points:
        folder = tmp_path / "s" / f"density-{point.density:g}"
        config = PrunerConfig.of(groups="neurons", **share(point.density, budget))
        grouping = prepare_groups(clean, samples, config)
        _, masks = load_compressed(folder / "compressed.safetensors")
        state = grouping.state_of(masks)
        if budget is None:
            for pool in grouping.pools:
                assert int((state[pool.members] == 0).sum()) == number_kept(pool, config)
        else:
            assert grouping.budget.holds(state)
        if point.start is not None:
            starts += 1
            near = tmp_path / "s" / f"density-{point.start:g}" / "compressed.safetensors"
            wanted = resize_groups(clean, load_compressed(near)[1], config, samples)
            found = icbs.load_masks(folder / "initial.safetensors")
            assert all(torch.equal(found[name], mask) for name, mask in wanted.items())
    assert starts == len(points) - 1


def test_an_interrupted_search_of_groups_gives_the_same_answer(tmp_path):
    def run(folder, callback=None):
        model, ((x, y),) = perceptron()
        return search(
            model, [(x[:180], y[:180])], LOSS, heldout=[(x[180:], y[180:])], max_accuracy_loss=0.1,
            groups="neurons", budget="macs", low=0.4, tolerance=0.5, passes=2, run=folder,
            callback=callback,
        )  # fmt: skip

    count = 0

    def stop(progress):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    parts = run(tmp_path / "parts")
    assert parts.density == whole.density
    for name, mask in whole.masks.items():
        assert torch.equal(parts.masks[name], mask)


def load() -> Task:
    """A user's task with two hidden dimensions."""
    model, ((x, y),) = perceptron()

    @torch.no_grad()
    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"accuracy": float((model(x[180:]).argmax(1) == y[180:]).double().mean())}

    return Task("hidden", model, [(x[:180], y[:180])], LOSS, evaluate)


TASK = ("--task", "tests.icbs.test_group_search:load")


@pytest.mark.parametrize(
    ("more", "said"),
    [((), "the share of the groups"), (("--budget", "macs"), "the share of the model's MACs")],
)
def test_the_command(tmp_path, more, said):
    folder = tmp_path / "s"
    arguments = ("--max-accuracy-loss", "0.1", "--low", "0.4", "--tolerance", "0.5")
    result = command(
        *("search", *TASK, *arguments, "--groups", "neurons", *more),
        *("--set", "passes=2", "--run", folder),
    )
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert f"density is here {said} that is kept" in words
    answer = json.loads((folder / "answer.json").read_text())
    assert f"density {answer['density']:g} meets the target" in words


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--budget", "macs"), "--budget needs --groups"),
        (("--groups", "neurons", "--budget", "mcs"), "did you mean 'macs'"),
        (("--groups", "neurons", "--set", "budget=macs=0.5"), "budget is chosen by the search"),
        (
            ("--groups", "neurons", "--method", "wanda"),
            "prunes single weights, and groups are pruned by method='icbs'",
        ),
        (("--groups", "heads"), "no heads"),
        (("--groups", "neurons", "--low", "0.02"), "choose 0.111 or more"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, more, said):
    folder = tmp_path / "s"
    result = command("search", *TASK, "--min-accuracy", "0.4", *more, "--run", folder)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not folder.exists()


def test_settings_of_groups_in_python():
    model, batches = perceptron()
    with pytest.raises(ConfigError, match="budget='macs' needs groups"):
        search(model, batches, LOSS, max_accuracy_loss=0.1, budget="macs")
    with pytest.raises(LayerError, match="no heads"):
        search(model, batches, LOSS, max_accuracy_loss=0.1, groups="heads")
