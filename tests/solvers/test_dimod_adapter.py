import itertools
import unittest

import dimod
import dimod.testing
import numpy as np
import pytest
from brute_force import lowest_energy, random_problem
from dwave.samplers import RandomSampler, SimulatedAnnealingSampler, TabuSampler

from problems import CardinalityQUBO, FormatError, InvalidProblemError
from problems.formats.bqm import to_bqm, to_cqm
from solvers import OptionError, Status, UnsupportedError, solve
from solvers.adapters import IcbsSampler, as_sampler, as_solver


def problem_of(n=8, k=3, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k=k, offset=1.5)


# -- a dimod sampler as a solver --------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "asked"),
    [
        (SimulatedAnnealingSampler(), {"seed": 0, "num_reads": 50}),
        (TabuSampler(), {"seed": 0, "num_reads": 10}),
        (dimod.ExactSolver(), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_dimod_sampler_solves(sampler, asked):
    problem = problem_of()
    solution = solve(problem, sampler, penalty="exchange", **asked)
    assert solution.energy == pytest.approx(lowest_energy(problem))
    assert solution.status is Status.FEASIBLE
    assert solution.info["penalty"]["policy"] == "exchange"


def test_capabilities_follow_the_samplers_parameters():
    can = as_solver(SimulatedAnnealingSampler()).capabilities
    assert (can.seed, can.num_reads, can.initial_state, can.time_limit) == (True, True, True, False)
    cannot = as_solver(dimod.ExactSolver()).capabilities
    assert (cannot.seed, cannot.num_reads, cannot.initial_state) == (False, False, False)
    with pytest.raises(UnsupportedError, match="seed"):
        solve(problem_of(), dimod.ExactSolver(), seed=1)
    with pytest.raises(UnsupportedError, match="time_limit"):
        solve(problem_of(), SimulatedAnnealingSampler(), time_limit=1.0)


def test_seed_reads_start_and_parameters_reach_the_sampler():
    seen = {}

    class Spy(SimulatedAnnealingSampler):
        def sample(self, bqm, **kwargs):
            seen.update(kwargs)
            return super().sample(bqm, **kwargs)

    problem = problem_of()
    start = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    solver = as_solver(Spy())
    answer = solve(
        problem, solver, seed=3, num_reads=4, initial_state=start, parameters={"num_sweeps": 7}
    )
    assert (seen["num_reads"], seen["num_sweeps"]) == (4, 7)
    np.testing.assert_array_equal(seen["initial_states"][0], start)
    assert 0 <= seen["seed"] < 2**31
    assert answer.energy <= problem.energy(start)
    assert solve(problem, Spy(), seed=3).energy == solve(problem, Spy(), seed=3).energy


def test_a_sampler_that_only_guesses_is_raised_and_then_repaired():
    problem = problem_of(n=12, k=1)
    answer = solve(problem, RandomSampler(), num_reads=5, raises=2, seed=0)
    tried = answer.info["penalty"]["strengths"]
    assert len(tried) == 3
    assert tried[0] < tried[1] < tried[2]
    assert answer.info["penalty"]["feasible_share"] == 0
    assert answer.feasible.all()
    assert answer.repaired.all()
    refused = solve(problem, RandomSampler(), num_reads=5, raises=2, seed=0, repair=False)
    assert refused.status is Status.NO_SOLUTION_FOUND
    assert refused.x is None
    assert not refused.repaired.any()


def test_other_objects_are_refused_as_backends():
    for thing in (42, object(), SimulatedAnnealingSampler, {"a": 1}):
        with pytest.raises(OptionError, match="pass"):
            solve(problem_of(), thing)
    with pytest.raises(OptionError, match="nonsense"):
        solve(problem_of(), SimulatedAnnealingSampler(), parameters={"nonsense": 1})
    with pytest.raises(OptionError, match="option"):
        solve(problem_of(), SimulatedAnnealingSampler(), nonsense=1)


# -- a solver as a dimod sampler --------------------------------------------------------------


@dimod.testing.load_sampler_bqm_tests(lambda: IcbsSampler("exhaustive"))
class TestExhaustiveSampler(unittest.TestCase):
    pass


@dimod.testing.load_sampler_bqm_tests(lambda: as_sampler("anneal"))
class TestAnnealSampler(unittest.TestCase):
    pass


@pytest.mark.parametrize("solver", ["exhaustive", "anneal", "diagonal", "neal"])
def test_sampler_api(solver):
    dimod.testing.assert_sampler_api(IcbsSampler(solver))
    assert "k" in IcbsSampler(solver).parameters


@pytest.mark.parametrize("seed", range(6))
def test_unconstrained_models_are_solved_as_they_stand(seed):
    rng = np.random.default_rng(seed)
    names = ["b", "a", ("t", 1), 7, "z"]
    J = {(u, v): rng.normal() for u, v in itertools.pairwise(names)}
    bqm = dimod.BinaryQuadraticModel.from_ising({v: rng.normal() for v in names}, J, offset=2.0)
    if seed % 2:
        bqm.change_vartype("BINARY")
    answer = IcbsSampler("exhaustive").sample(bqm)
    dimod.testing.assert_sampleset_energies(answer, bqm, precision=7)
    best = dimod.ExactSolver().sample(bqm).first
    assert answer.first.energy == pytest.approx(best.energy)
    assert answer.info["status"] == "optimal"


@pytest.mark.parametrize("seed", range(4))
def test_a_cardinality_given_at_either_time_is_kept(seed):
    problem = random_problem(7, 1, False, 1.0, seed)
    k = problem.k
    bqm = to_bqm(problem)
    for answer in (
        IcbsSampler("exhaustive", k=k).sample(bqm),
        IcbsSampler("exhaustive").sample(bqm, k=k),
    ):
        dimod.testing.assert_sampleset_energies(answer, bqm)
        assert answer.first.energy == pytest.approx(lowest_energy(problem))
        assert (answer.record.sample.sum(axis=1) == k).all()
        assert answer.record.is_feasible.all()


@pytest.mark.parametrize("seed", range(4))
def test_constrained_models_keep_their_groups(seed):
    problem = random_problem(7, 2, True, 1.0, seed)
    cqm = to_cqm(problem)
    answer = IcbsSampler("exhaustive").sample_cqm(cqm)
    dimod.testing.assert_sampleset_energies_cqm(answer, cqm)
    assert answer.first.energy == pytest.approx(lowest_energy(problem))


def test_other_constraints_are_refused():
    cqm = dimod.ConstrainedQuadraticModel()
    cqm.set_objective(dimod.Binary("a") - dimod.Binary("b"))
    cqm.add_constraint(dimod.Binary("a") + dimod.Binary("b") <= 1)
    with pytest.raises(FormatError):
        IcbsSampler("exhaustive").sample_cqm(cqm)


def test_initial_states_of_both_vartypes_are_never_worsened():
    problem = problem_of(n=10, k=5)
    bqm = to_bqm(problem)
    rng = np.random.default_rng(1)
    starts = np.array([rng.permutation([1] * 5 + [0] * 5) for _ in range(3)])
    for states in (starts, (2 * starts - 1, list(range(10)))):
        answer = IcbsSampler("neal", k=5, num_sweeps=1).sample(bqm, initial_states=states, seed=1)
        assert answer.first.energy <= problem.energy(starts).min() + 1e-9
    unconstrained = IcbsSampler("anneal").sample(bqm, initial_states=starts, num_reads=5, seed=1)
    assert unconstrained.first.energy <= problem.energy(starts).min() + 1e-9
    assert len(unconstrained) >= 5


def test_bad_initial_states_and_unknown_parameters():
    bqm = to_bqm(problem_of())
    sampler = IcbsSampler("anneal", k=3)
    with pytest.raises(OptionError, match="variables"):
        sampler.sample(bqm, initial_states={"a": 1})
    with pytest.raises(InvalidProblemError, match="k"):
        sampler.sample(bqm, initial_states=np.ones(8))
    for bad in ({"num_reads": "3"}, {"num_reads": 0}, {"time_limit": "1"}, {"seed": "1"}):
        with pytest.raises(OptionError, match=next(iter(bad))):
            sampler.sample(bqm, **bad)
    with pytest.warns(dimod.exceptions.SamplerUnknownArgWarning):
        sampler.sample(bqm, nonsense=1, time_limit=0.1)


def test_samplers_compose():
    bqm = to_bqm(problem_of())
    composites = pytest.importorskip("dwave.preprocessing.composites")
    sampler = composites.FixVariablesComposite(IcbsSampler("exhaustive"))
    answer = sampler.sample(bqm, fixed_variables={0: 1})
    assert answer.first.sample[0] == 1
    dimod.testing.assert_sampleset_energies(answer, bqm)


def test_there_and_back_again():
    answer = solve(problem_of(), IcbsSampler("exhaustive"))
    assert answer.status is Status.OPTIMAL  # the solver itself, not a penalty around it


def test_the_module_name_of_the_first_release_still_works():
    with pytest.warns(DeprecationWarning, match=r"solvers\.adapters\.IcbsSampler"):
        from solvers.dimod_ import IcbsSampler as Old
    assert Old is IcbsSampler
