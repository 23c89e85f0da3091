"""Gates of weights, sets, several layers and whole blocks, against lists of their members."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from icbs.model.gates import Change, Gates, Part
from icbs.model.layer import Layer

Members = list[list[tuple[int, int]]]
"""For each gate, the numbers of a layer and of a weight in it."""


@dataclass
class Setting:
    """Layers with masks that leave no gate half open, and gates in them."""

    layers: list[Layer]
    gates: Gates
    members: Members
    generator: torch.Generator
    rng: np.random.Generator = field(repr=False)

    def states(self) -> list[Tensor]:
        """Masks and weights of all layers, copied."""
        found = [layer.pruned.clone() for layer in self.layers]
        return found + [layer.module.weight.detach().clone() for layer in self.layers]


def make_layers() -> list[Layer]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [nn.Linear(5, 4), nn.Conv2d(2, 3, 2), nn.Linear(3, 6)]
        return [Layer.of(f"l{i}", module.double(), 0.5) for i, module in enumerate(modules)]


def build(kind: str, seed: int) -> Setting:
    """Gates of a kind, whose members are listed before they are built."""
    layers, rng = make_layers(), np.random.default_rng(seed)
    members, gates = KINDS[kind](layers, rng)
    closed = rng.random(len(members)) < 0.5
    for number, layer in enumerate(layers):
        pruned = torch.from_numpy(rng.random(layer.size) < 0.5)
        for gate, weights in zip(closed, members, strict=True):
            for of, index in weights:
                if of == number:
                    pruned[index] = bool(gate)
        layer.set_mask(pruned)
    return Setting(layers, gates, members, torch.Generator().manual_seed(seed), rng)


def single(layers: list[Layer], rng: np.random.Generator, of: int = 0) -> tuple[Members, Gates]:
    index = rng.permutation(layers[of].size)[: rng.integers(1, 9)]
    return [[(of, int(i))] for i in index], Gates.single(layers[of], torch.from_numpy(index))


def sets(layers: list[Layer], rng: np.random.Generator, of: int = 1) -> tuple[Members, Gates]:
    index = rng.permutation(layers[of].size)[: rng.integers(2, 16)]
    pieces = [x for x in np.split(index, sorted(rng.integers(0, len(index), 3))) if len(x)]
    members = [[(of, int(i)) for i in piece] for piece in pieces]
    return members, Gates.of_sets(layers[of], [torch.from_numpy(x) for x in pieces])


def across(layers: list[Layer], rng: np.random.Generator) -> tuple[Members, Gates]:
    """Neurons: each has weights of two layers, in any order."""
    count = int(rng.integers(1, 6))
    members: Members = [[] for _ in range(count)]
    parts = []
    for of in (0, 2):
        index = rng.permutation(layers[of].size)[: rng.integers(count, 14)]
        gate = rng.permutation(np.r_[:count, rng.integers(0, count, len(index) - count)])
        for i, g in zip(index, gate, strict=True):
            members[g].append((of, int(i)))
        parts.append(Part(layers[of], torch.from_numpy(index), torch.from_numpy(gate)))
    return members, Gates(parts, count)


def joined(layers: list[Layer], rng: np.random.Generator) -> tuple[Members, Gates]:
    """Single weights, sets, and blocks that were joined before."""
    blocks = [sets(layers, rng, 1), single(layers, rng, 0), single(layers, rng, 2)]
    order = [blocks[i] for i in rng.permutation(3)]
    (first, one), (second, two), (third, three) = order
    return first + second + third, Gates.joined([Gates.joined([one, two]), three])


def same_layer(layers: list[Layer], rng: np.random.Generator) -> tuple[Members, Gates]:
    """Two blocks of one layer, joined."""
    index = rng.permutation(layers[0].size)[:7]
    members = [[(0, int(i))] for i in index[:3]] + [[(0, int(i)) for i in index[3:]]]
    one, two = (torch.from_numpy(x) for x in (index[:3], index[3:]))
    return members, Gates.joined([Gates.single(layers[0], one), Gates.of_sets(layers[0], [two])])


KINDS = {
    "single": single,
    "sets": sets,
    "across": across,
    "joined": joined,
    "same layer": same_layer,
}
anything = given(kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 10_000))


@anything
@settings(max_examples=60, deadline=None)
def test_totals_are_sums_over_members(kind, seed):
    found = build(kind, seed)
    values = [torch.from_numpy(found.rng.standard_normal(len(p.index))) for p in found.gates.parts]
    by_weight = {
        (found.layers.index(part.layer), int(i)): float(v)
        for part, value in zip(found.gates.parts, values, strict=True)
        for i, v in zip(part.index, value, strict=True)
    }
    expected = [sum(by_weight[weight] for weight in gate) for gate in found.members]
    assert len(found.gates) == len(expected)
    assert sum(map(len, found.members)) == len(by_weight)
    np.testing.assert_allclose(found.gates.total(values), expected, atol=1e-12)


@anything
@settings(max_examples=60, deadline=None)
def test_a_gate_is_closed_where_its_weights_are_pruned(kind, seed):
    found = build(kind, seed)
    pruned = [[bool(found.layers[of].pruned[i]) for of, i in gate] for gate in found.members]
    assert all(len(set(gate)) <= 1 for gate in pruned)
    assert found.gates.closed().tolist() == [int(any(gate)) for gate in pruned]
    assert found.gates.closed().dtype == np.uint8


@anything
@settings(max_examples=60, deadline=None)
def test_changes_move_their_gates_alone_and_are_undone_exactly(kind, seed):
    found = build(kind, seed)
    gates, before, start = found.gates, found.states(), found.gates.closed()
    moved = np.flatnonzero(found.rng.random(len(gates)) < 0.5)
    changes = gates.changes(moved, start[moved] == 0)
    expected = [layer.pruned.clone() for layer in found.layers]
    for gate in moved:
        for of, index in found.members[gate]:
            expected[of][index] = not expected[of][index]
    differences = [change.difference for change in changes]
    for change in changes:
        change.apply()
    for layer, mask in zip(found.layers, expected, strict=True):
        assert torch.equal(layer.pruned, mask)
        assert torch.equal(layer.weight, torch.where(mask.view(layer.shape), 0, layer.dense))
    after = gates.closed()
    assert (np.flatnonzero(after != start) == moved).all()
    weights = before[len(found.layers) :]
    for change, difference in zip(changes, differences, strict=True):
        was = weights[found.layers.index(change.layer)]
        at = change.layer.unravel(change.index)
        assert torch.equal(change.layer.weight[at], change.layer.kind.matrix(was)[at] + difference)
    for change in changes:
        change.undo()
    assert all(torch.equal(a, b) for a, b in zip(found.states(), before, strict=True))


@anything
@settings(max_examples=60, deadline=None)
def test_columns_and_values_follow_their_gates(kind, seed):
    found = build(kind, seed)
    gates = found.gates
    for number, part in enumerate(gates.parts):
        incidence = torch.zeros(len(part.index), len(gates), dtype=torch.float64)
        for row, i in enumerate(part.index.tolist()):
            weight = found.layers.index(part.layer), i
            incidence[row, next(g for g, of in enumerate(found.members) if weight in of)] = 1
        columns = torch.randn(4, len(part.index), generator=found.generator, dtype=torch.float64)
        into = torch.randn(4, len(gates), generator=found.generator, dtype=torch.float64)
        expected = into + columns @ incidence
        gates.add_columns(number, columns, into)
        torch.testing.assert_close(into, expected)
        values = torch.randn(2, len(gates), generator=found.generator, dtype=torch.float64)
        torch.testing.assert_close(part.of(values), values @ incidence.T)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_joined_blocks_stand_one_after_another(seed):
    layers, rng = make_layers(), np.random.default_rng(seed)
    blocks = [sets(layers, rng, 1)[1], single(layers, rng, 0)[1], single(layers, rng, 2)[1]]
    labels = torch.arange(sum(map(len, blocks))) % 2
    together = Gates.joined(blocks, labels)
    assert len(together) == sum(map(len, blocks))
    assert together.labels is labels
    assert Gates.joined(blocks).labels is None
    assert together.layers == [layers[1], layers[0], layers[2]]
    assert together.name == "l1 + l0 + l2"
    values = [torch.from_numpy(rng.standard_normal(len(p.index))) for p in together.parts]
    apart = [b.total([v]) for b, v in zip(blocks, values, strict=True)]
    assert (together.total(values) == np.concatenate(apart)).all()
    for layer, number in zip(layers, (1, 0, 2), strict=True):
        ((found, part),) = together.of_layer(layer)
        assert found == number
        assert torch.equal(part.index, blocks[number].parts[0].index)
        assert torch.equal(part.weights, layer.dense.flatten()[part.index])


@pytest.mark.parametrize("kind", ["sets", "across", "same layer"])
def test_gates_that_are_pruned_in_part_are_refused(kind):
    for seed in range(5):
        found = build(kind, seed)
        of, index = next(gate for gate in found.members if len(gate) > 1)[0]
        layer, at = found.layers[of], torch.tensor([index])
        layer.set_block(at, ~layer.pruned[at])
        with pytest.raises(ValueError, match="both pruned and kept"):
            found.gates.closed()


def test_a_block_of_nothing_is_refused():
    layer = make_layers()[0]
    with pytest.raises(ValueError, match="at least one gate"):
        Gates.single(layer, torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one gate"):
        Gates([], 3)
    with pytest.raises(ValueError, match="at least one gate"):
        Gates.joined([])


def test_a_change_says_what_it_adds_to_each_weight():
    layer = make_layers()[0]
    layer.set_mask(torch.arange(layer.size) % 2 == 0)
    index = torch.tensor([0, 3, 4])
    change = Change(layer, index, torch.tensor([False, True, False]))
    dense = layer.dense.flatten()[index]
    assert torch.equal(change.difference, dense * torch.tensor([1, -1, 1]))
