"""What groups a model does not have, or a solver can't hold, is said before work."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from icbs import ConfigError, Pruner
from icbs.errors import LayerError
from icbs.groups.kwon import prune_in_stages
from icbs.structure import find_dimensions
from solvers import UnsupportedError
from tests.icbs.group_models import LOSS, convolutions, grouping_of, perceptron


class OneDimensional(nn.Module):
    """Two Conv1d, which can't be pruned, and a hidden layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 6, 3, padding=1), nn.Conv1d(6, 8, 3, padding=1)
        self.hidden, self.out = nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu().mean(2)
        return self.out(self.hidden(x).relu())


def test_dimensions_with_unsupported_layers_are_left_whole():
    torch.manual_seed(0)
    model = OneDimensional().eval()
    batches = [(torch.randn(60, 3, 9), torch.randint(3, (60,)))]
    pruner = Pruner(groups="channels,neurons", density=0.5, passes=1)
    with pytest.warns(UserWarning, match=r"no channels found .*first is a Conv1d") as found:
        result = pruner.prune(model, batches, LOSS, progress=False)
    assert found[0].filename == __file__
    assert list(result.groups) == ["hidden neurons"]
    assert int(result.groups["hidden neurons"].sum()) == 5
    with pytest.raises(LayerError, match=r"no channels that can be cut.*first is a Conv1d"):
        Pruner(groups="channels", density=0.5).prune(model, batches, LOSS)
    dimensions = find_dimensions(model, batches[0][0][:1], ("channels",))
    with pytest.raises(LayerError, match="'first channels' can't be pruned: .*Conv1d"):
        Pruner(groups="channels", density=0.5).prune(model, batches, LOSS, dimensions=dimensions)


def test_kinds_without_groups_are_named():
    model, batches = convolutions()
    with pytest.warns(UserWarning, match="no heads found; channels alone are pruned"):
        Pruner(groups="heads,channels", density=0.5, passes=0).prune(
            model, batches, LOSS, progress=False
        )


@pytest.mark.parametrize("amount", [{"density": 0.5}, {"budget": {"macs": 0.5}}])
def test_an_enumeration_that_is_too_large_is_refused_before_work(amount, monkeypatch):
    model, batches = perceptron()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr("icbs.pruner.Pruner.step", None)
    pruner = Pruner(
        groups="neurons", solver="exhaustive", solver_options={"max_states": 100}, **amount
    )
    with pytest.raises(UnsupportedError, match="max_states = 100; use solver 'exact'"):
        pruner.prune(model, batches, LOSS, progress=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_changed_solution_has_no_gap():
    """A bound of the problem with a linearised cost is none for states that hold the budget."""
    model, batches = convolutions()
    pruner = Pruner(groups="channels", budget={"macs": 0.4}, passes=4, solver="exact", seed=0)
    result = pruner.prune(model, batches, LOSS, progress=False)
    changed = [row for row in result.history if row.repaired]
    assert changed
    assert all(row.bound is None and row.gap is None and not row.proved for row in changed)
    assert "the problem with a linearised cost was solved" in str(result)
    assert result.proof.repaired == len(changed)


def test_masks_of_a_part_of_a_group_name_it():
    model, batches = perceptron()
    grouping = grouping_of(model, batches, "neurons")
    state = np.zeros(grouping.count, dtype=np.uint8)
    state[3] = 1
    grouping.close(state)
    masks = {layer.name: layer.mask.clone() for layer in grouping.layers}
    masks["2"][1, 3] = True
    expected = r"group 3 \(from 0\) of '0 neurons' \(7 of 8 weights of '2' pruned\)"
    with pytest.raises(LayerError, match=expected):
        grouping.state_of(masks)


def test_the_search_by_stages_asks_for_a_budget():
    model, batches = convolutions()
    for settings in ({}, {"density": 0.5}):
        with pytest.raises(ConfigError, match="needs a budget, such as budget="):
            prune_in_stages(model, batches, LOSS, groups="channels", **settings)
