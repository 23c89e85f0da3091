"""Blocks take the most promising free weights; the tabu list is first in, first out."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config import PrunerConfig
from icbs.errors import ConfigError
from icbs.model.layer import Layer
from icbs.selection.block_selection import Tabu, choose_block
from icbs.selection.selector import PerLayer


def layer_with_mask(rows: int, columns: int, density: float, seed: int) -> Layer:
    layer = Layer.of("layer", torch.nn.Linear(columns, rows), density)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(layer.size, generator=generator)
    pruned = torch.ones(layer.size, dtype=torch.bool)
    pruned[order[: layer.num_keep]] = False
    layer.set_mask(pruned)
    return layer


@settings(max_examples=50, deadline=None)
@given(
    share=st.floats(0, 0.95),
    pushes=st.lists(st.integers(1, 8), max_size=12),
    seed=st.integers(0, 1000),
)
def test_tabu_stamps_agree_with_a_queue(share, pushes, seed):
    free = torch.ones(30, dtype=torch.bool)
    tabu = Tabu(free, share)
    queue: deque[int] = deque(maxlen=int(share * 30))
    generator = torch.Generator().manual_seed(seed)
    for count in pushes:
        loose = (~tabu.active()).nonzero()[:, 0]
        chosen = loose[torch.randperm(len(loose), generator=generator)[:count]]
        tabu.push(chosen)
        queue.extend(chosen.tolist())
        assert set(tabu.active().nonzero()[:, 0].tolist()) == set(queue)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(2, 30),
    count=st.integers(1, 6),
    share=st.floats(0, 0.5),
    scope=st.sampled_from(["layer", "output", "input", "2:4"]),
    seed=st.integers(0, 1000),
)
def test_blocks_of_a_layer_are_disjoint_and_the_first_is_the_only_one(
    size, count, share, scope, seed
):
    layer = layer_with_mask(8, 12, 0.4, seed)
    if scope == "2:4":
        layer.set_mask(torch.tensor([True, False, False, True] * 24))
    scores = torch.rand(8, 12, generator=torch.Generator().manual_seed(seed))
    tabu = Tabu(torch.ones(96, dtype=torch.bool), share)
    tabu.push(torch.arange(tabu.length))
    stamps, free = tabu.stamp.clone(), tabu.free.clone()

    def blocks(count):
        config = PrunerConfig(block_size=size, blocks_per_layer=count, constraint=scope)
        selector = PerLayer(config)
        selector.score = lambda *given: scores
        generator = torch.Generator().manual_seed(seed)
        found = selector.select([layer], None, {"layer": tabu}, generator)
        return [gates.parts[0].index for gates in found.values()]

    several = blocks(count)
    assert torch.equal(several[0], blocks(1)[0])
    assert 1 <= len(several) <= count
    together = torch.cat(several)
    assert len(together) == len(together.unique())
    for index in several[1:]:  # each has weights to exchange
        assert layer.pruned[index].any()
        assert not layer.pruned[index].all()
    assert torch.equal(tabu.stamp, stamps)
    assert torch.equal(tabu.free, free)


def test_blocks_of_a_layer_rank_by_score():
    layer = layer_with_mask(8, 12, 0.4, 0)
    scores = torch.rand(8, 12, generator=torch.Generator().manual_seed(1))
    selector = PerLayer(PrunerConfig(block_size=8, blocks_per_layer=3))
    selector.score = lambda *given: scores
    tabu = Tabu(torch.ones(96, dtype=torch.bool), 0.0)
    found = selector.select([layer], None, {"layer": tabu}, torch.Generator())
    assert list(found) == ["layer", "layer 2", "layer 3"]
    index = torch.cat([gates.parts[0].index for gates in found.values()])
    whole = choose_block(layer, scores, tabu, PrunerConfig(block_size=24), torch.Generator())
    assert set(index.tolist()) == set(whole.tolist())
    pruned = [i for i in index.tolist() if layer.pruned[i]]
    assert pruned == sorted(pruned, key=lambda i: -scores.flatten()[i])


def test_one_block_of_all_weights_is_alone():
    with pytest.raises(ConfigError, match="leave blocks_per_layer out"):
        PrunerConfig.of(block_size="all", blocks_per_layer=2)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(2, 60), share=st.floats(0, 0.5), seed=st.integers(0, 1000))
def test_block_takes_the_best_of_both_sides(size, share, seed):
    layer = layer_with_mask(8, 10, 0.4, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(8, 10, generator=generator)
    free = torch.rand(80, generator=generator) < 0.9
    tabu = Tabu(free, share)
    tabu.push(free.nonzero()[:, 0][: tabu.length])
    config = PrunerConfig(block_size=size)
    index = choose_block(layer, scores, tabu, config, generator)
    assert len(index) == len(index.unique()) <= size
    flat, active = scores.flatten(), tabu.active()
    assert free[index].all()
    for side, sign in ((layer.pruned, 1.0), (~layer.pruned, -1.0)):
        taken = torch.zeros(80, dtype=torch.bool)
        taken[index] = True
        taken &= side
        fresh = side & free & ~active
        assert taken.sum() == min(size // 2, int((side & free).sum()))
        # Tabu weights come in only where the others have run out.
        if (taken & active).any():
            assert not (fresh & ~taken).any()
        inside, outside = (sign * flat)[taken & fresh], (sign * flat)[fresh & ~taken]
        if len(inside) and len(outside):
            assert inside.min() >= outside.max()


def test_oldest_tabu_weights_are_let_go_first():
    layer = layer_with_mask(1, 20, 0.5, 0)
    tabu = Tabu(torch.ones(20, dtype=torch.bool), 0.9)
    kept = (~layer.pruned).nonzero()[:, 0]
    tabu.push(kept)
    scores = torch.rand(1, 20)
    index = choose_block(layer, scores, tabu, PrunerConfig(block_size=8), torch.Generator())
    leaving = [i for i in index.tolist() if not layer.pruned[i]]
    assert set(leaving) == set(kept[:4].tolist())


@pytest.mark.parametrize("scope", ["output", "input"])
def test_lines_bring_candidates_of_both_sides(scope):
    layer = layer_with_mask(16, 24, 0.3, 1)
    tabu = Tabu(torch.ones(layer.size, dtype=torch.bool), 0.1)
    config = PrunerConfig(block_size=64, constraint=scope)
    index = choose_block(layer, torch.rand(16, 24), tabu, config, torch.Generator())
    rows, columns = layer.unravel(index)
    lines = rows if scope == "output" else columns
    assert len(lines.unique()) == 2
    assert len(index) <= 64
    for line in lines.unique():
        pruned = layer.pruned[index[lines == line]]
        assert pruned.any()
        assert not pruned.all()
