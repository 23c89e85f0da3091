"""N:M and other cardinalities hold from the first mask to the last."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from icbs import ConfigError, LayerError, Pruner, PrunerConfig
from icbs.config.constraints import Pattern, group_of, parse_pattern
from icbs.model.layer import Layer
from icbs.plugins import SCORES
from icbs.selection.block_selection import Tabu, choose_block

patterns = st.integers(2, 8).flatmap(
    lambda m: st.builds(Pattern, st.integers(1, m - 1), st.just(m))
)


def kept_per_run(mask: torch.Tensor, run: int) -> set[int]:
    return set(mask.reshape(-1, run).sum(dim=1).tolist())


@settings(max_examples=40)
@given(pattern=patterns, rows=st.integers(1, 5), runs=st.integers(1, 5), seed=st.integers(0, 999))
def test_pattern_masks_keep_the_best_of_each_run(pattern, rows, runs, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, runs * pattern.run, generator=generator)
    mask = pattern.mask(scores)
    assert kept_per_run(mask, pattern.run) == {pattern.keep}
    for values, kept in zip(scores.view(-1, pattern.run), mask.view(-1, pattern.run), strict=True):
        assert values[kept].min() >= values[~kept].max()


@settings(max_examples=40)
@given(
    pattern=patterns,
    size=st.integers(2, 60),
    pushed=st.integers(0, 12),
    fixed=st.floats(0, 0.4),
    seed=st.integers(0, 999),
)
def test_blocks_are_whole_runs_with_the_best_exchanges(pattern, size, pushed, fixed, seed):
    generator = torch.Generator().manual_seed(seed)
    run = pattern.run
    layer = Layer.of("layer", nn.Linear(3 * run, 4), pattern.density)
    layer.set_mask(~pattern.mask(torch.rand(4, 3 * run, generator=generator)).flatten())
    free = torch.rand(layer.size, generator=generator) >= fixed
    tabu = Tabu(free, 0.5)
    if pushed:
        tabu.push(torch.randperm(12, generator=generator)[:pushed] * run)
    scores = torch.rand(4, 3 * run, generator=generator)
    config = PrunerConfig(block_size=size, constraint=str(pattern))
    index = choose_block(layer, scores, tabu, config, generator)

    def gain(r: int) -> float:
        inside = torch.arange(r * run, (r + 1) * run)
        pruned, open_ = layer.pruned[inside], free[inside]
        if not (pruned & open_).any() or not (~pruned & open_).any():
            return -torch.inf
        worth = scores.flatten()[inside]
        return float(worth[pruned & open_].max() - worth[~pruned & open_].min())

    gains = [gain(r) for r in range(12)]
    chosen = (index // run).unique().tolist()
    assert len(index) == len(index.unique())
    assert sorted(index.tolist()) == [
        i for i in range(layer.size) if i // run in chosen and free[i]
    ]
    able = [r for r in range(12) if gains[r] > -torch.inf]
    assert set(chosen) <= set(able)
    assert len(chosen) == min(max(1, size // run), len(able))
    listed = set((tabu.active().nonzero()[:, 0] // run).tolist())
    fresh = [r for r in able if r not in listed]
    if len(fresh) >= len(chosen):
        assert set(chosen) == set(sorted(fresh, key=lambda r: -gains[r])[: len(chosen)])
    else:
        assert set(fresh) <= set(chosen)


@pytest.mark.parametrize("initial", [*sorted(set(SCORES.names()) - {"trajectory"}), "exchange"])
def test_every_score_starts_and_every_run_ends_under_the_pattern(toy, initial):
    result = Pruner(
        constraint="2:4", initial=initial, passes=3, block_size=32, gradient_samples=100
    ).prune(toy.model, toy.batches, toy.loss)
    assert result.density == 0.5
    assert sum(row.moved for row in result.history) > 0
    for mask in result.masks.values():
        assert kept_per_run(mask, 4) == {2}


def test_outputs_keep_the_counts_that_given_masks_have(toy):
    """Counts may differ from row to row: those of the start are kept."""
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(m.weight.shape, generator=generator) < 0.4
        for name, m in toy.model.named_modules()
        if isinstance(m, nn.Linear)
    }
    masks = {name: mask.contiguous() for name, mask in masks.items()}
    densities = {name: float(mask.float().mean()) for name, mask in masks.items()}
    result = Pruner(
        densities=densities, constraint="output", passes=4, block_size=64, gradient_samples=100
    ).prune(toy.model, toy.batches, toy.loss, masks=masks)
    assert result.accepted > 0
    assert any(not torch.equal(result.masks[name], mask) for name, mask in masks.items())
    for name, mask in masks.items():
        assert torch.equal(result.masks[name].sum(dim=1), mask.sum(dim=1))


@settings(max_examples=20)
@given(constraint=st.sampled_from(["layer", "output", "input", "2:4", "1:3"]))
def test_groups_are_the_lines_or_runs(constraint):
    grid = torch.arange(5 * 12)
    labels = group_of(grid, 12, constraint).view(5, 12)
    expected = {"layer": 1, "output": 5, "input": 12, "2:4": 15, "1:3": 20}[constraint]
    assert len(labels.unique()) == expected
    pattern = parse_pattern(constraint)
    if pattern is not None:
        assert (labels.view(-1, pattern.run) == labels.view(-1, pattern.run)[:, :1]).all()


def test_a_pattern_sets_the_density():
    config = PrunerConfig.of(constraint="1:4")
    assert config.density == 0.25
    assert PrunerConfig.of(**config.model_dump()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraint": "4:4"}, "4 of every 4"),
        ({"constraint": "0:4"}, "0 of every 4"),
        ({"constraint": "row"}, "layer, output, input"),
        ({"constraint": 124}, "constraint = 124"),
        ({"constraint": "2:4", "density": 0.3}, "leave density"),
        ({"constraint": "2:4", "densities": {"a": 0.3}}, "leave density"),
    ],
)
def test_bad_constraints_are_refused_with_a_remedy(changes, message):
    with pytest.raises(ConfigError, match=message):
        PrunerConfig.of(**changes)


def test_a_width_that_the_run_does_not_divide_is_refused_by_name(toy):
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    with pytest.raises(LayerError, match=r"2:8.*'0' \(12\), '2' \(20\)"):
        Pruner(constraint="2:8").prune(toy.model, toy.batches, toy.loss)
    assert all(torch.equal(value, before[name]) for name, value in toy.model.state_dict().items())
