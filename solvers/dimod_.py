"""Ocean's door, both ways: any dimod sampler as a solver, any solver as a dimod sampler."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dimod
import numpy as np

from problems import CardinalityQUBO
from problems.formats.bqm import from_bqm, from_cqm, order
from problems.penalty import Penalty
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import OptionError
from solvers.ocean import dense_bqm, states_of
from solvers.penalty import Penalised
from solvers.registry import create
from solvers.solution import Solution, Stop
from solvers.solve import solve, spawn_seeds


def as_solver(backend: Any) -> Solver:
    """Make a solver of a foreign object.

    Parameters
    ----------
    backend : dimod.Sampler, object with ``sample_cqm``, or OptimizationAlgorithm
        A structured sampler (a quantum processor, or its mock) is embedded; one that takes
        constrained models keeps the cardinality; any other dimod sampler gets it as a
        penalty; an algorithm of qiskit-optimization gets a ``QuadraticProgram``.

    Returns
    -------
    Solver

    Raises
    ------
    OptionError
        If it is none of these.
    """
    if isinstance(backend, Solver):
        return backend
    if isinstance(backend, IcbsSampler):
        return backend.solver
    if isinstance(backend, dimod.Structured):
        from solvers.qpu import Qpu

        return Qpu(sampler=backend)
    if hasattr(backend, "sample_cqm"):
        from solvers.hybrid import Hybrid

        return Hybrid(sampler=backend)
    if isinstance(backend, dimod.Sampler):
        return DimodSolver(sampler=backend)
    if "qiskit_optimization" in sys.modules:
        from qiskit_optimization.algorithms import OptimizationAlgorithm

        if isinstance(backend, OptimizationAlgorithm):
            from solvers.qiskit_optimizer import QiskitOptimizer

            return QiskitOptimizer(algorithm=backend)
    if isinstance(backend, type):
        raise OptionError(f"solver is the class {backend.__name__}; pass an instance of it")
    raise OptionError(
        f"solver is a {type(backend).__name__}; pass a registered name, a Solver, a "
        "dimod.Sampler, or an OptimizationAlgorithm of qiskit-optimization"
    )


@dataclass(frozen=True)
class DimodSolver(Penalised):
    """A dimod sampler behind our interface; its declared parameters are its capabilities.

    Parameters
    ----------
    sampler : dimod.Sampler
    parameters : dict
        Further keyword arguments of its ``sample``.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    sampler: Any = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.parameters) - set(self.sampler.parameters)):
            raise OptionError(
                f"{self.name} has no parameter {unknown[0]!r}; "
                f"it has: {', '.join(sorted(self.sampler.parameters)) or 'none'}"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The class of the sampler."""
        return f"dimod:{type(self.sampler).__name__}"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """What the sampler's parameters let it honour."""
        knows = self.sampler.parameters
        return Capabilities(
            native_cardinality=False,
            groups=True,
            deterministic="seed" in knows,
            time_limit="time_limit" in knows,
            seed="seed" in knows,
            initial_state="initial_states" in knows,
            num_reads="num_reads" in knows,
        )

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Call the sampler with what it declares."""
        begin = time.perf_counter()
        asked: dict[str, Any] = dict(self.parameters)
        knows = self.sampler.parameters
        if "num_reads" in knows:
            asked["num_reads"] = request.num_reads
        if request.seed is not None:
            asked["seed"] = request.seed % 2**31
        if request.initial_state is not None:
            asked["initial_states"] = request.initial_state.astype(np.int8), range(form.n)
        if request.time_limit is not None:
            asked["time_limit"] = request.remaining
        bqm = dense_bqm(form)
        build = time.perf_counter() - begin
        states = states_of(self.sampler.sample(bqm, **asked), form.n)
        cut = request.remaining == 0
        stop = Stop.TIME_LIMIT if cut else Stop.ITERATION_LIMIT
        return Outcome(states, stop, build_seconds=build)


def as_sampler(solver: Any = "anneal", k: Any = None, **options: Any) -> IcbsSampler:
    """Make a dimod sampler of a solver; see :class:`IcbsSampler`."""
    return IcbsSampler(solver, k, **options)


class IcbsSampler(dimod.Sampler):
    """Any of our solvers as a dimod sampler, with Ocean's parameter names.

    Without a cardinality a model of n variables is solved exactly as it stands: n idle
    variables without coefficients take up the slack, and n of the 2n are 1.

    Parameters
    ----------
    solver : str or Solver, default "anneal"
    k : int, optional
        Number of variables that are 1 in every sample; may be given to ``sample`` instead.
    **options
        The solver's own options, if it is given by name.

    Examples
    --------
    >>> sampler = IcbsSampler("exhaustive")
    >>> sampler.sample_ising({"a": 1.0}, {("a", "b"): -1.0}).first.sample
    {'a': -1, 'b': -1}
    """

    def __init__(self, solver: Any = "anneal", k: Any = None, **options: Any) -> None:
        self.solver = create(solver, **options) if isinstance(solver, str) else as_solver(solver)
        self.k = k

    @property
    def parameters(self) -> dict[str, Any]:
        """What ``sample`` takes: those of Ocean's parameters that the solver can honour."""
        can = self.solver.capabilities
        honoured = {
            "num_reads": can.num_reads,
            "seed": can.seed,
            "initial_states": can.initial_state,
            "time_limit": can.time_limit,
        }
        return {"k": []} | {name: [] for name, ok in honoured.items() if ok}

    @property
    def properties(self) -> dict[str, Any]:
        """The solver's name and capabilities."""
        return {"solver": self.solver.name, "capabilities": vars(self.solver.capabilities)}

    def sample(self, bqm: dimod.BinaryQuadraticModel, **parameters: Any) -> dimod.SampleSet:
        """Sample from a binary quadratic model.

        Parameters
        ----------
        bqm : dimod.BinaryQuadraticModel
            Of either vartype.
        k : int, optional
            Number of variables that are 1 (or spins that are up) in every sample.
        num_reads : int, optional
            By default, one for each initial state.
        seed : int, optional
        initial_states : samples-like, optional
            One for each read; reads beyond them start where the solver likes.
        time_limit : float, optional
            Wall seconds for all reads together.

        Returns
        -------
        dimod.SampleSet
            With a field ``is_feasible``.

        Raises
        ------
        IcbsError
            As :func:`solvers.solve` does.
        """
        k = parameters.pop("k", self.k)
        problem = from_bqm(bqm, 0 if k is None else k)
        labels, spare = order(bqm.variables), 0
        if k is None:
            problem, spare = _lifted(problem), problem.n
        states = parameters.pop("initial_states", None)
        starts = _starts(states, bqm, labels, spare)
        solutions = self._solve(problem, starts, **parameters)
        answer = _sampleset(solutions, problem, labels)
        return answer.change_vartype(bqm.vartype, inplace=False)

    def sample_cqm(
        self, cqm: dimod.ConstrainedQuadraticModel, **parameters: Any
    ) -> dimod.SampleSet:
        """Sample from a constrained model whose constraints are cardinalities.

        Takes what :meth:`sample` takes, but ``k``.

        Raises
        ------
        FormatError
            If a constraint is of another kind.
        """
        problem, labels = from_cqm(cqm), order(cqm.variables)
        starts = _starts(parameters.pop("initial_states", None), cqm.objective, labels, 0)
        return _sampleset(self._solve(problem, starts, **parameters), problem, labels)

    def _solve(
        self, problem: CardinalityQUBO, starts: list[Any], **parameters: Any
    ) -> list[Solution]:
        """Solve once for each start, and once for all reads without one."""
        reads = parameters.pop("num_reads", None)
        seed, limit = parameters.pop("seed", None), parameters.pop("time_limit", None)
        self.remove_unknown_kwargs(**parameters)
        if reads is None:
            reads = max(1, len(starts))
        runs = [(start, 1) for start in starts[:reads]]
        if reads > len(runs) or not runs:
            runs.append((None, reads - len(runs)))
        return [
            solve(
                problem,
                self.solver,
                seed=own,
                time_limit=None if limit is None else limit / len(runs),
                initial_state=start,
                num_reads=count,
            )
            for (start, count), own in zip(runs, spawn_seeds(seed, len(runs)), strict=True)
        ]


def _lifted(problem: CardinalityQUBO) -> CardinalityQUBO:
    """Add as many idle variables as there are, so that any number of the first may be 1."""
    n = problem.n
    if problem.is_factored:
        A = np.pad(problem.A, ((0, 0), (0, n)))
        linear = np.pad(problem.linear, (0, n))
        return CardinalityQUBO.from_factors(A, linear, n, offset=problem.offset)
    return CardinalityQUBO(np.pad(problem.Q, (0, n)), n, offset=problem.offset)


def _starts(
    states: Any, model: Any, labels: Sequence[Hashable], spare: int
) -> list[np.ndarray[Any, Any]]:
    """Bring Ocean's initial states, of either vartype, to ours."""
    if states is None:
        return []
    samples, names = dimod.as_samples(states)
    names = list(names)
    if set(names) != set(labels):
        raise OptionError("initial_states and the model have different variables")
    ones = (samples[:, [names.index(label) for label in labels]] > 0).astype(np.uint8)
    if not spare:
        return list(ones)
    idle = np.arange(spare) < spare - ones.sum(axis=1, dtype=np.int64)[:, None]
    return list(np.hstack([ones, idle.astype(np.uint8)]))


def _sampleset(
    solutions: list[Solution], problem: CardinalityQUBO, labels: list[Hashable]
) -> dimod.SampleSet:
    states = np.concatenate([s.samples for s in solutions])[:, : len(labels)]
    best = min(solutions, key=lambda s: s.energy)
    info = {"status": best.status.value, "stop": best.stop.value, "bound": best.bound}
    return dimod.SampleSet.from_samples(
        (states.astype(np.int8), labels),
        vartype="BINARY",
        energy=np.concatenate([s.energies for s in solutions]),
        info=best.info | info,
        is_feasible=np.concatenate([s.feasible for s in solutions]),
    )
