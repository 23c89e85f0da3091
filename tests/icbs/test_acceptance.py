"""Moves are kept or undone, one by one or a pass at a time; nothing is ever half done."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from icbs import Pruner
from icbs.blocks.acceptance import judge
from icbs.blocks.solving import solve_blocks
from icbs.config.old_names import OldAttributes
from icbs.run.context import RunContext
from icbs.run.run_folder import RunFolder
from icbs.run.start import begin
from icbs.run.state import RunState
from solvers import SolverError

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
    work = RunContext.prepare(toy.model, toy.batches, toy.loss, pruner.config)
    state = begin(work)
    blocks = pruner.blocks(state, work.layers, pruner.look(work, state, work.layers))
    return work, state, blocks, solve_blocks(blocks, pruner.solver, pruner.config, 0)


def weights(work: RunContext) -> list[torch.Tensor]:
    return [layer.weight.clone() for layer in work.layers]


def test_a_pass_that_helps_is_kept_whole(toy):
    work, state, blocks, answers = looked(toy)
    before = state.loss
    rows = judge(work, state, blocks, answers)
    assert all(row.accepted for row in rows)
    change = {row.actual for row in rows}
    assert len(change) == 1
    assert state.loss - before == pytest.approx(change.pop())
    assert state.loss < before
    assert state.loss == pytest.approx(work.holdout.measure())
    for block, answer in zip(blocks, answers, strict=True):
        x = torch.from_numpy(answer.x.astype(bool))
        assert torch.equal(block.layer.pruned[block.index], x)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_pass_that_hurts_is_undone_whole(toy, monkeypatch, error):
    """Also when the measurement itself is broken off."""
    work, state, blocks, answers = looked(toy)
    before, loss = weights(work), state.loss

    def measure() -> float:
        if error is not None:
            raise error
        return loss + 1.0

    monkeypatch.setattr(work.holdout, "measure", measure)
    if error is not None:
        with pytest.raises(error):
            judge(work, state, blocks, answers)
    else:
        rows = judge(work, state, blocks, answers)
        assert not any(row.accepted for row in rows)
        assert all(row.actual == pytest.approx(1.0) for row in rows)
        assert all(caution > 1 for caution in state.caution.values())
    assert state.loss == loss
    assert all(torch.equal(a, b) for a, b in zip(before, weights(work), strict=True))


def test_a_pass_is_tried_again_more_cautiously(toy, monkeypatch):
    work, state, _, _ = looked(toy, schedule="uniform", damping=1.05)
    pruner = Pruner(work.config)
    losses = iter([state.loss + 1e-3, state.loss + 1e-3, state.loss - 1])
    monkeypatch.setattr(work.holdout, "measure", lambda: next(losses))
    pruner.step(work, state)
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
    work, state, blocks, answers = looked(toy)
    answers[0] = SolverError("no")
    rows = judge(work, state, blocks, answers)
    assert [row.accepted for row in rows] == [False, True, True]
    assert rows[0].failure == "SolverError: no"
    # A failure says nothing about the model: no trust is won or lost by it.
    assert blocks[0].layer.name not in state.caution
    assert blocks[1].layer.name in state.caution


def test_a_pass_without_answers_teaches_nothing(toy):
    work, state, blocks, answers = looked(toy)
    before, loss = weights(work), state.loss
    rows = judge(work, state, blocks, [SolverError("no")] * len(answers))
    assert not any(row.accepted or row.moved for row in rows)
    assert state.caution == {}
    assert state.loss == loss
    assert all(torch.equal(a, b) for a, b in zip(before, weights(work), strict=True))


def test_a_move_that_would_change_the_density_is_not_made(toy):
    """Whatever became of the answer after it was checked."""
    work, state, blocks, answers = looked(toy)
    before, density = [layer.pruned.clone() for layer in work.layers], work.density
    answers[0].x[:] = 1
    answers[1].x[0] = 7
    rows = judge(work, state, blocks, answers)
    assert [row.moved > 0 for row in rows] == [False, False, True]
    assert all("would change the density" in row.failure for row in rows[:2])
    assert work.density == density
    assert all(
        torch.equal(layer.pruned, was)
        for layer, was in zip(work.layers[:2], before[:2], strict=True)
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
    ("worth", "grows"),
    [(inf, -1), (1.0, -1), (0.5, -1), (0.3, 0), (0.1, 1), (-0.1, 1), (-5.0, 1), (nan, 1)],
)
def test_trust_follows_what_the_model_was_worth(worth, grows):
    state = RunState(torch.Generator(), {})
    state.trust([SimpleNamespace(name="layer")], worth, 1.2)
    caution = state.caution["layer"]
    assert (caution > 1) - (caution < 1) == grows


@pytest.mark.parametrize(
    ("unit", "worth", "growth", "samples"),
    [
        ("pass", 0.1, 2.0, [50, 100, 200, 400, 400]),
        ("pass", -0.1, 3.0, [50, 150, 400, 400, 400]),
        ("pass", 0.3, 2.0, [50] * 5),
        ("pass", 0.1, 1.0, [50] * 5),
        ("block", 0.1, 2.0, [50] * 5),
    ],
)
def test_passes_grow_while_their_models_are_worth_little(
    toy, monkeypatch, tmp_path, unit, worth, growth, samples
):
    monkeypatch.setattr(OldAttributes, "sample_growth", growth)
    small = {"gradient_samples": 50, "curvature_samples": 20, "acceptance": unit}
    pruner = Pruner(**(SETTINGS | small | {"schedule": "uniform"}))
    work = RunContext.prepare(toy.model, toy.batches, toy.loss, pruner.config)
    work.pool = work.pool[:400]
    work.plan = replace(work.plan, samples=min(work.plan.samples, 400))
    state = begin(work)
    passes, rows = [], []
    look = pruner.look

    def spy(*args):  # type: ignore[no-untyped-def]
        passes.append(look(*args))
        return passes[-1]

    monkeypatch.setattr(pruner, "look", spy)
    trust = state.trust
    monkeypatch.setattr(state, "trust", lambda layers, _, factor: trust(layers, worth, factor))
    for _ in samples:
        pruner.step(work, state)
        layer = work.layers[0]
        factor = passes[-1].curvature(layer, passes[-1].chosen[layer.name]).factor
        rows.append(len(factor))
    assert [information.count for information in passes] == samples
    assert rows == [20 * count // 50 for count in samples]
    with RunFolder.new(tmp_path / "run") as folder:
        folder.create(work, {}, None)
        folder.save(work, state)
        loaded = folder.load(work)
    assert (loaded.effort, loaded.seen) == (
        state.effort,
        50 + sum(samples),
    )  # of the start, and of the passes


def test_trust_in_what_is_no_number_and_in_what_moved_nothing(toy, monkeypatch):
    work, state, blocks, answers = looked(toy)
    monkeypatch.setattr(work.holdout, "measure", lambda: float("nan"))
    before = weights(work)
    assert not any(row.accepted for row in judge(work, state, blocks, answers))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(work), strict=True))
    (high,) = set(state.caution.values())
    assert high > 2
    for block, answer in zip(blocks, answers, strict=True):
        answer.x[:] = block.start
    judge(work, state, blocks, answers)
    (low,) = set(state.caution.values())
    assert low < high


def test_without_caution_passes_grow_all_the_same(toy):
    work, state, blocks, answers = looked(toy, damping=1)
    state.loss = -1e9
    judge(work, state, blocks, answers)
    assert set(state.caution.values()) == {1.0}
    assert state.worth < 0


def test_a_run_of_passes_that_grow_or_move_nothing_resumes_to_the_same_bits(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(OldAttributes, "sample_growth", 1.3)
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


def test_what_a_run_grew_to_is_bounded_by_the_plan_it_is_resumed_with(toy):
    work, state, _, _ = looked(toy, schedule="uniform")
    work.plan = replace(work.plan, samples=300)
    state.effort = 100.0
    pruner = Pruner(work.config)
    assert pruner.look(work, state, work.layers).count == 300


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
