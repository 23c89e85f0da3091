"""Every registered solver against the conformance suite; a new solver is one row."""

import dataclasses
import itertools
import time
from typing import ClassVar

import dimod
import numpy as np
import pytest

from solvers import Capabilities, Outcome, Solver, Stop, create, get, names
from solvers.adapters import as_solver
from solvers.testing import CHECKS, Case, check_solver


def mocked_qpu():
    testing = pytest.importorskip("dwave.system.testing")
    mock = testing.MockDWaveSampler(
        topology_type="zephyr", topology_shape=[4, 4], parameter_warnings=False
    )
    # The largest clique of this processor has 56 variables.
    return create("qpu", sampler=mock, anneals=20)


def numpy_eigensolver():
    from qiskit_optimization.algorithms import MinimumEigenOptimizer
    from qiskit_optimization.minimum_eigensolvers import NumPyMinimumEigensolver

    return as_solver(MinimumEigenOptimizer(NumPyMinimumEigensolver()))


#: (solver, case): a name with options that keep tests short, or a factory of an instance.
TABLE = {
    "anneal": {},
    "anneal-gpu": {},  # on the CPU solver, where there is no device
    "cpsat": {"options": {"workers": 1}, "large_n": 60},
    "diagonal": {},
    "exact": {},
    "exhaustive": {},
    "hybrid": {"solver": lambda: create("hybrid", sampler=dimod.ExactCQMSolver()), "large_n": 12},
    "neal": {"options": {"num_sweeps": 100}},
    "qaoa": {"options": {"evaluations": 5, "p": 1}, "n": 6, "large_n": 16},
    "qpu": {"solver": mocked_qpu, "large_n": 50},
    "random": {},
    "scip": {"large_n": 100},
    "steepest": {},
    "tabu": {"options": {"updates_least": 1000, "num_restarts": 1}},
    "any dimod sampler": {"solver": lambda: as_solver(dimod.ExactSolver())},
    "any qiskit optimiser": {"solver": numpy_eigensolver, "n": 5},
}


def case_of(row: str) -> Case:
    settings = dict(TABLE[row])
    build = settings.pop("solver", None)
    return Case(build() if build else row, **settings)


@pytest.mark.parametrize("row", TABLE)
@pytest.mark.parametrize("check", CHECKS)
def test_promise(row, check):
    if row in names() and (missing := get(row).missing()):
        pytest.skip(f"needs {missing}")
    CHECKS[check](case_of(row))


def test_every_registered_solver_has_a_row():
    ours = {name for name in names() if get(name).__module__.startswith("solvers.")}
    assert ours <= set(TABLE)


# -- broken solvers fail the suite ------------------------------------------------------------


class Honest(Solver):
    """Minimal solver: answers with the first feasible states."""

    name = "honest"
    summary = "for the tests of the suite"
    capabilities = Capabilities(time_limit=False, seed=False, initial_state=False, num_reads=False)

    def run(self, problem, request):
        x = np.zeros(problem.n, dtype=np.uint8)
        x[: problem.k] = 1
        return Outcome(x[None], Stop.CONVERGED)


class Infeasible(Honest):
    def run(self, problem, request):
        return Outcome(np.ones((1, problem.n), dtype=np.uint8), Stop.CONVERGED)


class Boastful(Honest):
    capabilities = dataclasses.replace(Honest.capabilities, exact=True)

    def run(self, problem, request):
        return dataclasses.replace(super().run(problem, request), proven=True)


class Bounding(Honest):
    def run(self, problem, request):
        outcome = super().run(problem, request)
        return dataclasses.replace(outcome, bound=problem.energy(outcome.samples[0]))


class Slow(Honest):
    capabilities = dataclasses.replace(Honest.capabilities, time_limit=True)

    def run(self, problem, request):
        if problem.n > 12:
            time.sleep(1.3)
        return super().run(problem, request)


class Fickle(Honest):
    capabilities = dataclasses.replace(Honest.capabilities, seed=True)

    runs: ClassVar = itertools.count()

    def run(self, problem, request):
        x = np.roll(super().run(problem, request).samples[0], next(self.runs))
        return Outcome(x[None], Stop.CONVERGED)


class Meddling(Honest):
    def run(self, problem, request):
        problem.Q[0, 0] += 1
        return super().run(problem, request)


class Scribbling(Honest):
    """Writes only into factored problems."""

    capabilities = dataclasses.replace(Honest.capabilities, initial_state=True)

    def run(self, problem, request):
        if problem.is_factored:
            problem.linear[:] = 0
        return super().run(problem, request)


class Restarting(Honest):
    capabilities = dataclasses.replace(Honest.capabilities, initial_state=True)

    def run(self, problem, request):
        if request.initial_state is not None:
            request.initial_state[:] = 1 - request.initial_state
        return super().run(problem, request)


class Rebinding(Honest):
    """Scales the problem it was given."""

    def run(self, problem, request):
        problem.offset *= 2
        return super().run(problem, request)


BUFFER = np.zeros((1, 64), dtype=np.uint8)
SHUFFLE = np.random.default_rng(0)


class Reusing(Honest):
    """Returns a view of the one buffer that all its runs write to."""

    def run(self, problem, request):
        view = BUFFER[:, : problem.n]
        # Another state in each run; without a seed two were equal once in a thousand times.
        view[0] = SHUFFLE.permutation(super().run(problem, request).samples[0])
        return Outcome(view, Stop.CONVERGED)


class Refuted(Honest):
    def run(self, problem, request):
        return dataclasses.replace(super().run(problem, request), bound=1e9)


class Generous(Honest):
    capabilities = dataclasses.replace(Honest.capabilities, num_reads=True)

    def run(self, problem, request):
        return Outcome(np.repeat(super().run(problem, request).samples, 9, 0), Stop.CONVERGED)


class Mute(Honest):
    capabilities = dataclasses.replace(Honest.capabilities, callback=True)


def test_an_honest_solver_passes():
    check_solver(Honest())


@pytest.mark.parametrize(
    ("solver", "check", "message"),
    [
        (Infeasible(), "answers", "no feasible state"),
        (Boastful(), "answers", "claimed optimal"),
        (Bounding(), "answers", "not a lower bound"),
        (Slow(), "time_limit", "for a time limit"),
        (Fickle(), "seed", "equal seeds"),
        (Meddling(), "answers", "writes into its input.*read-only"),
        (Meddling(), "inputs", "a dense problem was changed"),
        (Scribbling(), "inputs", "a factored problem was changed"),
        (Restarting(), "inputs", "the start was changed"),
        (Restarting(), "initial_state", "writes into its input"),
        (Rebinding(), "inputs", "was changed"),
        (Reusing(), "outputs", "changed the samples"),
        (Refuted(), "answers", "lies above the energy"),
        (Generous(), "num_reads", "9 samples for 1 reads"),
        (Mute(), "callback", "never called"),
    ],
)
def test_broken_promises_are_named(solver, check, message):
    with pytest.raises(AssertionError, match=message):
        CHECKS[check](Case(solver))
