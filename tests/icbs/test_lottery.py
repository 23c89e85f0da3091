"""Lottery tickets: counts, rewinding, the control, and other mask makers."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from icbs import ConfigError, LayerError, hold_masks
from icbs.lottery import find_ticket, magnitude, with_pruner

INPUTS = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0] * INPUTS[:, 1] > 0).long()


def toy(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2))


def train(model, steps=15):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS), TARGETS).backward()
        optimizer.step()


@torch.no_grad()
def evaluate(model):
    return {"loss": float(nn.functional.cross_entropy(model(INPUTS), TARGETS))}


def test_each_round_prunes_its_share_and_survivors_are_rewound():
    model = toy()
    start = copy.deepcopy(model.state_dict())
    seen = []
    ticket = find_ticket(
        model, train, evaluate, rounds=3, share=0.5, shares={"2": 0.25}, callback=seen.append
    )
    assert ticket.rounds == seen
    assert [int(m.sum()) for m in ticket.masks.values()] == [15, 16]
    assert [r.density for r in ticket.rounds] == [1, 90 / 160, 52 / 160, 31 / 160]
    for name, mask in ticket.masks.items():
        assert torch.equal(ticket.state[f"{name}.weight"], start[f"{name}.weight"] * mask)
    again = toy(seed=5)
    again.load_state_dict(ticket.state)
    with hold_masks(again, ticket.masks):
        train(again)
    assert evaluate(again) == ticket.rounds[-1].figures == evaluate(model)


def test_the_first_round_is_that_of_magnitude_pruning():
    model, by_hand = toy(), toy()
    ticket = find_ticket(model, train, evaluate, rounds=1, share=0.2, control=False)
    train(by_hand)
    size = by_hand[0].weight.detach().abs()
    kept = ticket.masks["0"]
    assert size[kept].min() >= size[~kept].max()
    assert ticket.rounds[0].figures == evaluate(by_hand)
    assert ticket.rounds[1].control is None


def test_masks_are_nested():
    before, model = {}, toy()

    def maker(model, masks, keep):
        before.update(masks)
        return magnitude(model, masks, keep)

    ticket = find_ticket(model, train, evaluate, rounds=3, share=0.4, maker=maker, control=False)
    for name, mask in ticket.masks.items():
        assert not (mask & ~before[name]).any()


def test_the_control_has_the_mask_and_other_weights():
    starts = []

    def watched(model):
        starts.append(copy.deepcopy(model.state_dict()))
        train(model)

    ticket = find_ticket(toy(), watched, evaluate, rounds=1, share=0.5, seed=3)
    assert len(starts) == 3
    assert torch.equal(starts[1]["0.weight"] == 0, starts[2]["0.weight"] == 0)
    assert not torch.equal(starts[1]["0.weight"], starts[2]["0.weight"])
    assert ticket.rounds[1].control != ticket.rounds[1].figures


def test_rewinding_to_an_early_step():
    model = toy()
    early = toy()
    train(early, steps=2)
    ticket = find_ticket(model, train, evaluate, rounds=1, rewind=early.state_dict(), control=False)
    mask = ticket.masks["0"]
    assert torch.equal(ticket.state["0.weight"], early.state_dict()["0.weight"] * mask)
    dense = toy()
    train(dense)
    assert ticket.rounds[0].figures == evaluate(dense), "from the initialisation"


@pytest.mark.parametrize("settings", [{"passes": 0, "initial": "wanda"}, {"passes": 3}])
def test_other_masks(settings):
    maker = with_pruner([(INPUTS, TARGETS)], nn.CrossEntropyLoss(), block_size=16, **settings)
    ticket = find_ticket(toy(), train, evaluate, rounds=2, maker=maker, control=False)
    assert [int(m.sum()) for m in ticket.masks.values()] == [77, 26]


@pytest.mark.parametrize(
    "settings", [{"passes": 0, "initial": "random"}, {"passes": 2, "initial": "random"}]
)
def test_masks_by_the_pruner_are_nested(settings):
    inner, before = (
        with_pruner([(INPUTS, TARGETS)], nn.CrossEntropyLoss(), block_size=16, **settings),
        [],
    )

    def maker(model, masks, keep):
        before.append(masks)
        return inner(model, masks, keep)

    ticket = find_ticket(toy(), train, evaluate, rounds=3, share=0.4, maker=maker, control=False)
    for earlier, later in pairwise([*before, ticket.masks]):
        for name, mask in later.items():
            assert not (mask & ~earlier[name]).any()


def test_revived_weights_are_refused():
    def maker(model, masks, keep):
        found = magnitude(model, masks, keep)
        for name, mask in found.items():
            if not masks[name].all():  # swaps a kept weight for one of an earlier round
                mask.view(-1)[int(mask.flatten().nonzero()[0])] = False
                mask.view(-1)[int((~masks[name]).flatten().nonzero()[0])] = True
        return found

    model, start = toy(), copy.deepcopy(toy().state_dict())
    with pytest.raises(LayerError, match="keeps 1 weight that an earlier round pruned"):
        find_ticket(model, train, evaluate, rounds=2, share=0.4, maker=maker, control=False)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_an_error_in_training_restores_the_model():
    model, calls = toy(), []
    start = copy.deepcopy(model.state_dict())

    def fail(model):
        train(model)
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_ticket(model, fail, evaluate, rounds=2)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("settings", [{"density": 0.5}, {"include": ["0"]}, {"pases": 1}])
def test_settings_that_the_search_determines_are_refused(settings):
    with pytest.raises(ConfigError, match="determined by the search|did you mean 'passes'"):
        with_pruner([(INPUTS, TARGETS)], nn.CrossEntropyLoss(), **settings)


def test_bad_input_is_refused_before_training():
    def never(model):
        raise AssertionError

    def find(**more):
        return find_ticket(toy(), never, evaluate, **more)

    with pytest.raises(ConfigError, match="share of 'share' is 1.5"):
        find(share=1.5)
    with pytest.raises(ConfigError, match="'head', which no layer matches; there are 0, 2"):
        find(shares={"head": 0.1})
    with pytest.raises(ConfigError, match="rounds is 0"):
        find(rounds=0)
    with pytest.raises(LayerError, match="rewind has nothing for '0.weight'"):
        find(rewind={})
    model = toy()
    model.scale = nn.ParameterList([nn.Parameter(torch.ones(1))])
    with pytest.raises(ConfigError, match="ParameterList has no reset_parameters; pass initialise"):
        find_ticket(model, never, evaluate)
    with pytest.raises(LayerError, match="keeps 120 weights instead of 96"):
        find_ticket(toy(), train, evaluate, maker=lambda model, masks, keep: dict(masks))
