"""Small real pruning runs with solvers that lie: the density stays exact, the reason is kept."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
import torch

from icbs import Pruner, Result
from solvers import guard
from tests.campaigns.lies import (
    BATCHES,
    CORRECTED,
    COSTLY,
    DEADLY,
    ENDLESS,
    HARMLESS,
    RACING,
    BadBatch,
    BatchLiar,
    Liar,
)
from tests.icbs.conftest import make_toy

PATHS = ("single", "batch", "threads", "processes")
CONSTRAINTS = ("layer", "2:4", "output")


def prune(solver: Liar, path: str, constraint: str, **settings: Any) -> Result:
    """Prune a small classifier; whatever the solver does, what must hold is checked here."""
    toy = make_toy()
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    density = {"density": 0.5} if constraint == "2:4" else {"density": 0.3}
    settings = {"passes": 4} | settings
    common = {"block_size": 24, "schedule": "uniform", "initial": "random"}
    samples = {"gradient_samples": 100, "curvature_samples": 50, "acceptance_samples": 100}
    pruner = Pruner(**density, **common, **samples, constraint=constraint, **settings)
    pruner.solver = solver
    with ExitStack() as stack:
        executor = None
        if path == "threads":
            executor = stack.enter_context(ThreadPoolExecutor(2))
        elif path == "processes":
            executor = stack.enter_context(ProcessPoolExecutor(2))
        result = pruner.prune(toy.model, toy.batches, toy.loss, executor=executor)
    for name, mask in result.masks.items():
        weight = toy.model.get_submodule(name).weight
        assert int(mask.sum()) == round(density["density"] * mask.numel())
        assert torch.equal(weight, dense[f"{name}.weight"] * mask)
        if constraint == "2:4":
            assert (mask.view(-1, 4).sum(dim=1) == 2).all()
    assert result.loss <= result.initial_loss
    return result


@cache
def truth(constraint: str) -> list[tuple[Any, ...]]:
    return told(prune(Liar(), "single", constraint))


def told(result: Result) -> list[tuple[Any, ...]]:
    """Return what a history says, but for the times."""
    return [(r.step, r.layer, r.n, r.moved, r.energy, r.actual, r.failure) for r in result.history]


def costs_its_blocks(solver: Liar, path: str, constraint: str, reason: str, **settings: Any):
    result = prune(solver, path, constraint, **settings)
    failed = [row for row in result.history if row.failure]
    assert failed
    assert len(failed) < len(result.history)
    for row in failed:
        assert "'liar'" in row.failure
        assert reason in row.failure
        assert not row.moved
    assert any(row.accepted for row in result.history)


def survive(kind: str, path: str, constraint: str) -> None:
    solver = (BatchLiar if path == "batch" else Liar)(kind)
    if kind in COSTLY:
        costs_its_blocks(solver, path, constraint, COSTLY[kind][1])
    elif kind in HARMLESS:
        assert told(prune(solver, path, constraint)) == truth(constraint)
    elif kind in RACING:
        prune(solver, path, constraint)
    else:
        result = prune(solver, path, constraint)
        assert not any(row.failure for row in result.history)
        assert any(not row.moved for row in result.history)


EVERY = [*COSTLY, *HARMLESS, *CORRECTED, *RACING]
QUICK = {  # one of each mechanism
    "single": ["None", "sys.exit(0)", "writes into its start", "changes its answer later"],
    "batch": ["repaired too long", "StopIteration", "too many ones"],
    "threads": ["GeneratorExit", "attributes that raise", "sets the problem's attributes"],
    "processes": ["an error of its own", "info unreadable", "a bound above the optimum"],
}


@pytest.mark.parametrize(("path", "kind"), [(p, kind) for p in PATHS for kind in QUICK[p]])
def test_a_lie_of_each_kind(path: str, kind: str) -> None:
    survive(kind, path, "layer")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", EVERY)
def test_every_lie_on_every_path(kind: str, path: str) -> None:
    turn = EVERY.index(kind) + PATHS.index(path)
    survive(kind, path, CONSTRAINTS[turn % 3])


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_that_is_wrong_as_a_whole_is_solved_one_by_one(batch: str) -> None:
    assert told(prune(BadBatch(batch=batch), "batch", "layer")) == truth("layer")


@pytest.fixture
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GRACE", 0.3)


@pytest.mark.slow
@pytest.mark.usefixtures("little_grace")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_is_ended(kind: str, path: str) -> None:
    solver = (BatchLiar if path == "batch" else Liar)(kind)
    reason = ENDLESS[kind][1]
    costs_its_blocks(solver, path, "layer", reason, solver_time_limit=0.2, passes=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEADLY)
@pytest.mark.parametrize(("path", "limit"), [("processes", None), ("single", 5.0), ("batch", 5.0)])
def test_what_kills_its_process_costs_its_blocks(kind: str, path: str, limit: float) -> None:
    solver = (BatchLiar if path == "batch" else Liar)(kind)
    reason = DEADLY[kind][1]
    costs_its_blocks(solver, path, "layer", reason, solver_time_limit=limit, passes=2)


def test_the_campaign_is_as_large_as_it_says() -> None:
    everywhere = len(EVERY) + len(ENDLESS)
    assert everywhere * len(PATHS) + 3 * len(DEADLY) + len(BATCHES) >= 88
