"""The examples of solvers of one's own that live in one file: Gurobi, and adapters of OMMX."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from brute_force import lowest_energy, random_problem

from problems import CardinalityQUBO
from solvers import BackendError, MissingBackendError, OptionError, Status, Stop, create, solve
from solvers.testing import CHECKS, Case

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def gurobi(examples):
    gurobipy = pytest.importorskip("gurobipy")
    try:
        gurobipy.Env(params={"OutputFlag": 0}).close()
    except gurobipy.GurobiError as error:
        pytest.skip(f"needs a licence of Gurobi: {error}")
    return importlib.import_module("gurobi_solver")


@pytest.fixture
def ommx(examples):
    pytest.importorskip("ommx_pyscipopt_adapter")
    return importlib.import_module("ommx_solver")


def block(n):
    rng = np.random.default_rng(3)
    A = rng.normal(size=(n // 3, n)) + rng.normal(size=(n // 3, 1))
    linear = 25 * rng.normal(size=n) - 2 * A.T @ (A @ np.full(n, 0.5))
    return CardinalityQUBO.from_factors(A, linear, n // 2)


# -- Gurobi ------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_gurobi_keeps_every_promise(gurobi, check):
    CHECKS[check](Case(gurobi.Gurobi(), large_n=150))


@pytest.mark.parametrize("seed", range(8))
def test_gurobi_proves_the_optimum(gurobi, seed):
    p = random_problem(10, 1 + seed % 3, seed % 2 == 0, 1.0, seed)
    answer = solve(p, "gurobi_solver:Gurobi", seed=seed)
    size = np.abs(p.Q).sum()
    assert answer.energy == pytest.approx(lowest_energy(p), abs=1e-9 * size)
    assert answer.status is Status.OPTIMAL
    assert answer.bound is None or answer.bound <= lowest_energy(p) + 1e-12 * size


@pytest.mark.parametrize("n", [60, 200])
def test_gurobi_on_a_block(gurobi, n):
    p, seen = block(n), []
    start = np.repeat([1, 0], n // 2).astype(np.uint8)
    answer = solve(
        p,
        gurobi.Gurobi(),
        time_limit=5.0,
        seed=0,
        initial_state=start,
        callback=lambda t, e: seen.append(e),
    )
    best = solve(p, "exact", time_limit=5.0)
    assert answer.bound <= best.energy
    assert best.bound <= answer.energy <= p.energy(start)
    assert seen == sorted(seen, reverse=True)
    if answer.is_optimal and best.is_optimal:
        assert answer.energy == pytest.approx(best.energy, rel=1e-6)


def test_gurobi_stops_where_the_callback_says(gurobi):
    answer = solve(block(60), gurobi.Gurobi(), callback=lambda t, e: True)
    assert answer.x is not None
    assert answer.stop is Stop.INTERRUPTED

    def fail(seconds, energy):
        raise LookupError("mine")

    with pytest.raises(BackendError, match="LookupError: mine"):
        solve(block(60), gurobi.Gurobi(), callback=fail)


def test_without_gurobipy_the_remedy_is_named(examples, monkeypatch):
    module = importlib.import_module("gurobi_solver")
    monkeypatch.setattr(module.Gurobi, "requires", {"gurobipy_missing": "gurobipy>=11"})
    with pytest.raises(MissingBackendError, match="pip install 'gurobipy>=11'"):
        solve(block(12), module.Gurobi())
    with pytest.raises(OptionError, match="threads is -1"):
        module.Gurobi(threads=-1)


# -- OMMX --------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_an_adapter_of_ommx_keeps_every_promise(ommx, check):
    CHECKS[check](Case(ommx.OmmxSolver(), n=6))


@pytest.mark.parametrize("seed", range(6))
def test_an_adapter_of_ommx_finds_the_optimum(ommx, seed):
    p = random_problem(9, 1 + seed % 3, seed % 2 == 0, 1.0, seed)
    answer = solve(p, create("ommx_solver:OmmxSolver"))
    assert answer.energy == pytest.approx(lowest_energy(p), abs=1e-6 * np.abs(p.Q).sum())
    assert answer.status is Status.OPTIMAL


def test_an_adapter_that_is_missing_is_named(ommx):
    with pytest.raises(MissingBackendError, match="pip install ommx-no-adapter"):
        solve(block(12), ommx.OmmxSolver(adapter="ommx_no_adapter:Adapter"))
    with pytest.raises(OptionError, match="module:Class"):
        ommx.OmmxSolver(adapter="ommx_no_adapter")


def test_the_command_takes_it_from_its_folder(ommx, tmp_path):
    p = random_problem(8, 1, False, 1.0, 1)
    p.save(tmp_path / "block.npz")
    command = [sys.executable, "-m", "icbs", "solve", str(tmp_path / "block.npz"), "--json"]
    result = subprocess.run(
        [*command, "--solver", "ommx_solver:OmmxSolver"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'"energy": {lowest_energy(p):.6f}'[:14] in result.stdout
