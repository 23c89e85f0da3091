"""Moves are kept or undone, one by one or a pass at a time; nothing is ever half done."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch

from icbs import Pruner
from icbs.acceptance.damping import Damping
from icbs.acceptance.per_block import KeepAll, PerBlock
from icbs.acceptance.per_pass import PerPass
from icbs.blocks.block import Block
from icbs.blocks.solving import solve_blocks
from icbs.run.context import RunContext
from icbs.run.history import Row
from icbs.run.start import start_run
from icbs.run.state import RunState
from solvers import Solution, SolverError

SETTINGS = {
    "density": 0.3,
    "block_size": 32,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
    "acceptance": "pass",
    "initial": "random",
}


def looked(toy, **changes):
    """A run, and the blocks of its first pass with their best answers."""
    pruner = Pruner(**(SETTINGS | changes))
    context = RunContext.prepare(toy.model, toy.batches, toy.loss, pruner.config)
    state = start_run(context)
    blocks = pruner.build(context, state, pruner.look(context, state, context.layers))
    return context, state, blocks, solve_blocks(blocks, pruner.solver, pruner.config, 0)


def judge(
    context: RunContext,
    state: RunState,
    blocks: list[Block],
    answers: list[Solution | SolverError],
) -> list[Row]:
    """Judge by the rule of the run."""
    return state.acceptance.judge(context, state, blocks, answers)


def weights(context: RunContext) -> list[torch.Tensor]:
    return [layer.weight.clone() for layer in context.layers]


def test_a_pass_that_helps_is_kept_whole(toy):
    context, state, blocks, answers = looked(toy)
    before = state.loss
    rows = judge(context, state, blocks, answers)
    assert all(row.accepted for row in rows)
    change = {row.actual for row in rows}
    assert len(change) == 1
    assert state.loss - before == pytest.approx(change.pop())
    assert state.loss < before
    assert state.loss == pytest.approx(context.holdout.measure())
    for block, answer in zip(blocks, answers, strict=True):
        x = torch.from_numpy(answer.x.astype(bool))
        assert torch.equal(block.layer.pruned[block.index], x)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_pass_that_hurts_is_undone_whole(toy, monkeypatch, error):
    """Also when the measurement itself is broken off."""
    context, state, blocks, answers = looked(toy)
    before, loss = weights(context), state.loss

    def measure() -> float:
        if error is not None:
            raise error
        return loss + 1.0

    monkeypatch.setattr(context.holdout, "measure", measure)
    if error is not None:
        with pytest.raises(error):
            judge(context, state, blocks, answers)
    else:
        rows = judge(context, state, blocks, answers)
        assert not any(row.accepted for row in rows)
        assert all(row.actual == pytest.approx(1.0) for row in rows)
        damping = state.acceptance.damping.by_layer
        assert set(damping) == {layer.name for layer in context.layers}
        assert all(factor > 1 for factor in damping.values())
    assert state.loss == loss
    assert all(torch.equal(a, b) for a, b in zip(before, weights(context), strict=True))


def test_a_pass_is_tried_again_more_cautiously(toy, monkeypatch):
    context, state, _, _ = looked(toy, schedule="uniform", damping=1.05)
    pruner = Pruner(context.config)
    losses = iter([state.loss + 1e-3, state.loss + 1e-3, state.loss - 1])
    monkeypatch.setattr(context.holdout, "measure", lambda: next(losses))
    pruner.step(context, state)
    assert len(state.history) == 9
    assert not any(row.accepted for row in state.history[:6])
    # So cautious a block may stay where it is.
    last = state.history[6:]
    assert [row.accepted for row in last] == [row.moved > 0 for row in last]
    assert any(row.accepted for row in last)
    predicted = [sum(r.predicted for r in state.history[i : i + 3]) for i in (0, 3, 6)]
    assert predicted[0] < predicted[1] < predicted[2] < 0
    assert state.step == 1


def test_a_failed_solver_costs_its_block_alone(toy):
    context, state, blocks, answers = looked(toy)
    answers[0] = SolverError("no")
    rows = judge(context, state, blocks, answers)
    assert [row.accepted for row in rows] == [False, True, True]
    assert rows[0].failure == "SolverError: no"
    # A failure says nothing about the model: no trust is won or lost by it.
    damping = state.acceptance.damping.by_layer
    assert blocks[0].layer.name not in damping
    assert blocks[1].layer.name in damping


def test_a_pass_without_answers_teaches_nothing(toy):
    context, state, blocks, answers = looked(toy)
    before, loss = weights(context), state.loss
    rows = judge(context, state, blocks, [SolverError("no")] * len(answers))
    assert not any(row.accepted or row.moved for row in rows)
    assert state.acceptance.damping.by_layer == {}
    assert state.loss == loss
    assert all(torch.equal(a, b) for a, b in zip(before, weights(context), strict=True))


def test_a_move_that_would_change_the_density_is_not_made(toy):
    """Whatever became of the answer after it was checked."""
    context, state, blocks, answers = looked(toy)
    before, density = [layer.pruned.clone() for layer in context.layers], context.density
    answers[0].x[:] = 1
    answers[1].x[0] = 7
    rows = judge(context, state, blocks, answers)
    assert [row.moved > 0 for row in rows] == [False, False, True]
    assert all("would change the density" in row.failure for row in rows[:2])
    assert context.density == density
    assert all(
        torch.equal(layer.pruned, was)
        for layer, was in zip(context.layers[:2], before[:2], strict=True)
    )


@pytest.mark.parametrize("constraint", ["layer", "output", "2:4"])
def test_counts_are_kept_in_each_group(toy, constraint):
    changes = {} if constraint == "layer" else {"constraint": constraint}
    if constraint == "2:4":
        changes["density"] = 0.5
    _, _, blocks, _ = looked(toy, **changes)
    for block in blocks:
        groups = block.problem.groups
        assert block.keeps_counts(block.start)
        i = int(np.flatnonzero(block.start)[0])
        swapped = block.start.copy()
        j = int(np.flatnonzero((block.start == 0) & (groups == groups[i]))[0])
        swapped[[i, j]] = 0, 1
        assert block.keeps_counts(swapped)
        swapped[j] = 0
        assert not block.keeps_counts(swapped)
        if len(other := np.flatnonzero((block.start == 0) & (groups != groups[i]))):
            swapped[other[0]] = 1
            assert not block.keeps_counts(swapped)
        assert not block.keeps_counts(block.start[1:])


@pytest.mark.parametrize(
    ("gain_ratio", "grows"),
    [(inf, -1), (1.0, -1), (0.5, -1), (0.3, 0), (0.1, 1), (-0.1, 1), (-5.0, 1), (nan, 1)],
)
def test_trust_follows_what_the_model_was_worth(gain_ratio, grows):
    damping = Damping(1.2)
    damping.update_trust_region(["layer"], gain_ratio)
    factor = damping.by_layer["layer"]
    assert (factor > 1) - (factor < 1) == grows


def test_damping_stays_within_bounds():
    damping = Damping(2.0)
    for _ in range(100):
        damping.update_trust_region(["up"], -1.0)
        damping.update_trust_region(["down"], inf)
        damping.update(["one"], accepted=False)
    assert damping.by_layer == {"up": 1e6, "down": 1e-6, "one": 1e6}


def test_trust_in_what_is_no_number_and_in_what_moved_nothing(toy, monkeypatch):
    context, state, blocks, answers = looked(toy)
    monkeypatch.setattr(context.holdout, "measure", lambda: float("nan"))
    before = weights(context)
    assert not any(row.accepted for row in judge(context, state, blocks, answers))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(context), strict=True))
    (high,) = set(state.acceptance.damping.by_layer.values())
    assert high > 2
    for block, answer in zip(blocks, answers, strict=True):
        answer.x[:] = block.start
    judge(context, state, blocks, answers)
    (low,) = set(state.acceptance.damping.by_layer.values())
    assert low < high


def test_without_caution_nothing_is_damped_and_no_pass_is_tried_again(toy):
    context, state, blocks, answers = looked(toy, damping=1)
    state.loss = -1e9
    rows = judge(context, state, blocks, answers)
    assert not any(row.accepted for row in rows)
    assert set(state.acceptance.damping.by_layer.values()) == {1.0}
    assert state.acceptance.attempts == 1


@pytest.mark.parametrize(
    ("changes", "kind", "attempts"),
    [
        ({}, PerPass, 3),
        ({"curvature": "fisher+gram"}, PerPass, 3),
        # The prediction is of something else than the loss: damping would learn nothing.
        ({"curvature": "gram"}, PerPass, 1),
        ({"damping": 1}, PerPass, 1),
        ({"acceptance": "block"}, PerBlock, 1),
        ({"acceptance": "off"}, KeepAll, 1),
    ],
)
def test_settings_name_the_rule_and_how_often_a_pass_is_tried(toy, changes, kind, attempts):
    context, state, _, _ = looked(toy, **changes)
    rule = state.acceptance
    assert type(rule) is kind
    assert rule.attempts == attempts
    assert rule.models_loss == (context.config.curvature != "gram")


@pytest.mark.parametrize("changes", [{}, {"acceptance": "block"}])
def test_a_rule_takes_up_the_state_that_it_said_it_had(toy, changes):
    context, state, blocks, answers = looked(toy, **changes)
    state.loss = -1e9
    judge(context, state, blocks, answers)
    facts = state.acceptance.facts() | {"warned": True}
    assert len(facts["damping"]) == 3
    fresh = context.acceptance_rule()
    fresh.restore(facts)
    assert fresh.facts() == facts
    assert fresh.damping.of(facts["damping"]) == max(facts["damping"].values())


def test_what_models_the_error_of_a_layer_learns_no_damping_from_the_loss(toy):
    context, state, blocks, answers = looked(toy, curvature="gram")
    state.loss = -1e9
    assert any(row.moved for row in judge(context, state, blocks, answers))
    assert state.acceptance.damping.by_layer == {}


def test_a_run_with_passes_that_move_nothing_resumes_to_the_same_bits(toy, tmp_path):
    settings = SETTINGS | {
        "gradient_samples": 50,
        "curvature_samples": 20,
        "passes": 14,
        "checkpoint_every": 1,
        "seed": 3,
    }
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    whole = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    moved = [sum(row.moved for row in whole.history if row.step == s) for s in range(14)]
    assert 0 in moved

    def figures(result):  # type: ignore[no-untyped-def]
        return [(row.step, row.layer, row.n, row.actual) for row in result.history]

    for stop in range(1, 14, 3):
        toy.model.load_state_dict(dense)

        def interrupt(progress, stop=stop):  # type: ignore[no-untyped-def]
            if progress.step == stop:
                raise KeyboardInterrupt

        run = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            Pruner(**settings).prune(toy.model, toy.batches, toy.loss, run=run, callback=interrupt)
        toy.model.load_state_dict(dense)
        assert figures(Pruner.resume(run, toy.model, toy.batches, toy.loss)) == figures(whole)


def test_a_run_judged_by_passes_improves_and_resumes_to_the_same_bits(toy, tmp_path):
    settings = SETTINGS | {"passes": 8, "checkpoint_every": 3}
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    whole = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    assert whole.loss < whole.initial_loss - 0.05
    toy.model.load_state_dict(dense)

    def interrupt(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pruner(**settings).prune(
            toy.model, toy.batches, toy.loss, run=tmp_path / "run", callback=interrupt
        )
    toy.model.load_state_dict(dense)
    resumed = Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss)
    assert resumed.loss == whole.loss
    assert len(resumed.history) == len(whole.history)
    assert all(torch.equal(resumed.masks[name], whole.masks[name]) for name in whole.masks)
