"""Proofs of optimality: from the solver's solution to the history, the result and the report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from icbs import Pruner
from icbs.report.layers import layer_figures
from icbs.report.overview import Overview
from icbs.report.tables import columns, facts
from icbs.run.history import BlockRecord, read_history
from icbs.run.proof import Proof
from solvers import Solution, get, solve

BLANK = {field.name: 0 for field in dataclasses.fields(BlockRecord)}
KEPT = {"moved": 4, "accepted": True, "energy": -2.0}
UNDONE = {"moved": 4, "accepted": False, "energy": -3.0}
STILL = {"moved": 0, "accepted": False, "energy": 1e-17}
YES, NO = {"proved": True, "bound": -2.0}, {"proved": False, "bound": -2.5}


def row(*parts: dict) -> BlockRecord:
    found = BLANK | {"layer": "0", "failure": "", "bound": None, "proved": False}
    for part in parts:
        found = found | part
    return BlockRecord(**found)


@pytest.mark.parametrize(
    ("rows", "optimal", "gap", "words"),
    [
        ([], False, None, ""),
        ([row(KEPT)], False, None, ""),
        ([row(KEPT, YES), row(STILL, YES)], True, None, "optimal for the quadratic model: every"),
        ([row(KEPT, NO), row(KEPT, YES)], True, 0.0,
         "optimal for the quadratic model: the last accepted block, and 1 of 2 blocks solved"),
        ([row(KEPT, YES), row(UNDONE, NO)], True, 0.0, "optimal for the quadratic model: the last"),
        ([row(KEPT, YES), row(KEPT, NO)], False, 0.25,
         "not proved optimal for the quadratic model: energy -2.000, bound -2.500, gap 25.00% in "),
        ([row(KEPT, YES), row(STILL, NO)], False, 2.5,
         "not proved optimal for the quadratic model: energy 0, bound -2.500 in the last"),
        ([row(KEPT, YES), row(KEPT)], False, None,
         "not proved optimal for the quadratic model: 1 of 2 blocks solved to proven optimality"),
        ([row(UNDONE, YES)], False, None, "no solution accepted; 1 of 1 block solved to proven"),
        ([row(KEPT, YES), row(STILL, {"failure": "x"})], True, 0.0, "optimal for the quadratic"),
    ],
)  # fmt: skip
def test_what_is_proved_is_said_in_words(rows, optimal, gap, words):
    proof = Proof.of(rows)
    assert proof.optimal is optimal
    assert str(proof).startswith(words)
    assert bool(proof) is bool(words)
    if gap is not None:
        assert proof.gap == pytest.approx(gap)


@pytest.mark.parametrize("solver", ["exact", "cpsat", "anneal", "diagonal"])
def test_the_history_has_the_solvers_own_proof_and_bound(toy64, solver, monkeypatch):
    made: list[Solution] = []
    # A heuristic would search until its limit.
    limit = {"time_limit": 5} if get(solver).capabilities.exact else {}

    def solve_blocks(blocks, own, *_):
        answers = [solve(block.problem, own, **limit) for block in blocks]
        made.extend(answers)
        return answers

    monkeypatch.setattr("icbs.pruner.solve_blocks", solve_blocks)
    pruner = Pruner(density=0.3, passes=4, block_size=12, solver=solver)
    result = pruner.prune(toy64.model, toy64.batches, toy64.loss, progress=False)
    assert [row.proved for row in result.history] == [answer.is_optimal for answer in made]
    assert [row.bound for row in result.history] == [answer.bound for answer in made]
    for record in result.history:
        if record.bound is not None:
            scale = abs(record.energy) + 1e-9
            assert record.bound <= record.energy + 1e-9 * scale
    if get(solver).capabilities.exact:
        assert result.proof.optimal
        assert result.proof.proved == len(result.history)
        assert str(result.proof) in str(result)
    summary = result.summary()
    assert summary["proved"] == sum(answer.is_optimal for answer in made)
    assert summary["optimal"] is result.proof.optimal
    assert summary["gap"] == result.proof.gap


def test_a_run_folder_keeps_and_shows_the_proofs(toy64, tmp_path):
    run = tmp_path / "run"
    pruner = Pruner(density=0.3, passes=5, block_size=12, solver="exact", checkpoint_every=2)
    stop = lambda progress: progress.step == 3  # noqa: E731
    toy64_state = {k: v.clone() for k, v in toy64.model.state_dict().items()}
    pruner.prune(toy64.model, toy64.batches, toy64.loss, run=run, callback=stop)
    toy64.model.load_state_dict(toy64_state)
    result = Pruner.resume(run, toy64.model, toy64.batches, toy64.loss)
    assert all(record.proved for record in result.history)
    assert read_history(run / "history.csv") == result.history
    found = Overview.of(run)
    assert str(result.proof) in facts(found)
    table = columns(found.layers, found)
    assert sum(map(int, table["proved"])) == len(result.history)


@pytest.mark.filterwarnings("ignore::icbs.NothingMovesWarning")
def test_a_problem_that_is_not_proved_in_time_has_a_gap(toy64):
    pruner = Pruner(density=0.3, passes=2, block_size="all", solver="exact", solver_time_limit=0.05)
    result = pruner.prune(toy64.model, toy64.batches, toy64.loss, progress=False)
    assert not any(record.proved for record in result.history)
    bounds = [record.bound for record in result.history]
    assert all(bound is not None and np.isfinite(bound) for bound in bounds)
    assert "optimal for the quadratic model: every" not in str(result)


def test_a_block_of_several_layers_has_their_weights():
    rows = [row(KEPT, YES, {"layer": "a + b"}), row(KEPT, NO, {"layer": "a + b"})]
    figures = layer_figures(rows, {"a": (10, 4), "b": (20, 5), "c": (7, 7)}, by_pass=False)
    found = {layer.name: layer for layer in figures}
    assert list(found) == ["a", "a + b", "b", "c"]
    assert (found["a + b"].size, found["a + b"].kept) == (30, 9)
    assert (found["a + b"].blocks, found["a + b"].proved) == (2, 1)
    assert found["c"].size == 7
    odd = layer_figures([row(KEPT, {"layer": "a + b"})], {"a + b": (3, 1)}, by_pass=False)
    assert odd[0].size == 3
