"""Blocks take the most promising free weights; the tabu list is first in, first out."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config import PrunerConfig
from icbs.model.layer import Layer
from icbs.selection.block_selection import Tabu, choose_block


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
