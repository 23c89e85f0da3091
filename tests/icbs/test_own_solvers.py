"""Users' solvers in a pruning run: instances, samplers, import strings, run folders."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import dimod
import numpy as np
import pytest
import torch

from icbs import ConfigError, Pruner
from icbs.cli.config_file import Settings
from problems import CardinalityQUBO
from solvers import (
    Capabilities,
    OptionError,
    Outcome,
    Solver,
    SolverError,
    Stop,
    UnknownSolverError,
    create,
    solve,
)
from solvers.neal import Neal
from tests.icbs.conftest import make_toy

SETTINGS = {"density": 0.3, "passes": 2, "block_size": 8, "seed": 3, "checkpoint_every": 1}


@dataclass(frozen=True)
class Descent(Solver):
    """First-improvement swaps from the start."""

    rounds: int = 3

    name: ClassVar[str] = "own-descent"
    summary: ClassVar[str] = "swaps"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, num_reads=False)

    def run(self, problem, request):
        x = np.array(request.initial_state)
        for _ in range(self.rounds):
            for i in np.flatnonzero(x):
                for j in np.flatnonzero(x == 0):
                    y = x.copy()
                    y[i], y[j] = 0, 1
                    if problem.is_feasible(y) and problem.energy(y) < problem.energy(x):
                        x = y
                        break
        return Outcome(x[None], Stop.ITERATION_LIMIT)


def prune(solver, run=None, **more):
    toy = make_toy()
    pruner = Pruner(solver=solver, **SETTINGS | more)
    result = pruner.prune(toy.model, toy.batches, toy.loss, run=run, progress=False)
    assert not any(row.failure for row in result.history), result.first_failure
    return pruner, result


@pytest.mark.parametrize(
    ("solver", "recorded"),
    [
        (Descent(rounds=2), f"{__name__}:Descent"),
        (dimod.ExactSolver(), "dimod.reference.samplers.exact_solver:ExactSolver"),
        (f"{__name__}:Descent", f"{__name__}:Descent"),
        (Neal(num_sweeps=50), "neal"),
        ("exhaustive", "exhaustive"),
    ],
    ids=["instance", "sampler", "reference", "registered", "name"],
)
def test_a_run_takes_any_kind_of_solver_with_a_folder_too(tmp_path, solver, recorded):
    pruner, result = prune(solver, tmp_path / "run")
    assert pruner.config.solver == recorded
    assert result.density == pytest.approx(0.3, abs=0.01)
    toy = make_toy()
    again = {} if ":" not in recorded else {"solver": solver}
    resumed = Pruner.resume(
        tmp_path / "run", toy.model, toy.batches, toy.loss, progress=False, passes=2, **again
    )
    assert all(torch.equal(resumed.masks[name], mask) for name, mask in result.masks.items())


def test_the_options_of_an_instance_are_recorded(tmp_path):
    pruner, _ = prune(Neal(num_sweeps=50), tmp_path / "run")
    assert pruner.config.solver_options == {"num_sweeps": 50}


def test_a_folder_or_a_file_can_not_run_a_solver(tmp_path):
    prune(f"{__name__}:Descent", tmp_path / "run")
    toy = make_toy()
    with pytest.raises(ConfigError, match="give it again"):
        Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss)
    config = tmp_path / "theirs.yaml"
    config.write_text("pruner: {solver: 'os:system'}\n")
    with pytest.raises(ConfigError, match="--solver os:system"):
        Settings.read(config, {})
    named = Settings.read(config, {"pruner.solver": "os:system"})
    assert named.pruner.solver == "os:system"


@pytest.mark.parametrize("name", ["nowhere_at_all:Thing", "math:Nothing", "math:"])
def test_a_failed_import_is_named(name):
    with pytest.raises(UnknownSolverError, match="can't be imported"):
        Pruner(solver=name, density=0.5)


def test_a_reference_takes_options_and_agrees_with_its_class():
    Q = np.random.default_rng(0).normal(size=(10, 10))
    problem = CardinalityQUBO(Q + Q.T, 4)
    start = np.array([1] * 4 + [0] * 6)
    by_name = solve(problem, f"{__name__}:Descent", rounds=1, initial_state=start)
    by_hand = solve(problem, Descent(rounds=1), initial_state=start)
    assert by_name.energy == by_hand.energy


def test_a_solver_of_the_current_directory_is_found(tmp_path):
    (tmp_path / "mysolver.py").write_text(
        Path(__file__)
        .read_text()
        .split("\n@dataclass")[0]
        .partition("SETTINGS")[0]
        .replace("from tests.icbs.conftest import make_toy\n", "")
        + "\n\n@dataclass"
        + Path(__file__).read_text().split("\n@dataclass")[1].split("\n\n\ndef ")[0]
    )
    np.save(tmp_path / "start.npy", np.array([1, 1, 0, 0, 0], dtype=np.uint8))
    (tmp_path / "p.coo").write_text("0 0 1\n1 1 2\n2 2 -4\n3 3 -1\n4 4 0.5\n")
    words = ["solve", "p.coo", "--k", "2", "--solver", "mysolver:Descent", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "icbs", *words, "--initial-state", "start.npy"],
        capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"energy": -5.0' in done.stdout


SEVENTH = Descent(rounds=7)


def test_an_instance_by_import_string_takes_options():
    changed = create(f"{__name__}:SEVENTH", rounds=2)
    assert (changed.rounds, SEVENTH.rounds) == (2, 7)
    with pytest.raises(OptionError, match="no option 'round'.*did you mean 'rounds'"):
        create(f"{__name__}:SEVENTH", round=2)


def test_a_run_records_the_options_of_an_instance(tmp_path):
    pruner, _ = prune(Descent(rounds=2), tmp_path / "run")
    assert pruner.config.solver == f"{__name__}:Descent"
    assert pruner.config.solver_options == {"rounds": 2}


class Nameless(Solver):
    summary = "says neither its name nor what it can do"

    def run(self, problem, request):
        raise AssertionError("never asked")


@pytest.mark.parametrize("solver", [f"{__name__}:Nameless", Nameless()], ids=["string", "instance"])
def test_a_solver_without_a_name_is_refused(solver):
    with pytest.raises(SolverError, match="Nameless.* has no name; it must be a class attribute"):
        solve(CardinalityQUBO(np.eye(4), 2), solver)
