"""dimod samplers as solvers, and solvers as dimod samplers."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dimod
import numpy as np

from problems import CardinalityQUBO
from problems.formats.bqm import from_bqm, from_cqm, variable_order
from problems.free import add_partners, free
from problems.penalty import Penalty
from solvers.adapters import as_solver
from solvers.adapters.ocean import dense_bqm, sample_states
from solvers.base import Capabilities, Outcome, Problem, Request
from solvers.errors import OptionError
from solvers.penalised import Penalised
from solvers.registry import create
from solvers.request import checked_reads, checked_seconds
from solvers.solution import Solution, Stop
from solvers.solve import solve
from solvers.streams import bounded_seed, spawn_seeds


@dataclass(frozen=True)
class DimodSolver(Penalised):
    """A dimod sampler as a solver; its parameters determine its capabilities.

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
        """Capabilities derived from the sampler's parameters."""
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
        """Call the sampler with the parameters that it supports."""
        begin = time.perf_counter()
        asked: dict[str, Any] = dict(self.parameters)
        knows = self.sampler.parameters
        if "num_reads" in knows:
            asked["num_reads"] = request.num_reads
        if request.seed is not None:
            asked["seed"] = bounded_seed(request.seed, 2**31)
        if request.initial_state is not None:
            asked["initial_states"] = request.initial_state.astype(np.int8), range(form.n)
        if request.time_limit is not None:
            asked["time_limit"] = request.remaining
        bqm = dense_bqm(form)
        build = time.perf_counter() - begin
        states = sample_states(self.sampler.sample(bqm, **asked), form.n)
        cut = request.remaining == 0
        stop = Stop.TIME_LIMIT if cut else Stop.ITERATION_LIMIT
        return Outcome(states, stop, build_seconds=build)


def as_sampler(solver: Any = "anneal", k: Any = None, **options: Any) -> IcbsSampler:
    """Wrap a solver as a dimod sampler; see :class:`IcbsSampler`."""
    return IcbsSampler(solver, k, **options)


class IcbsSampler(dimod.Sampler):
    """A solver as a dimod sampler, with Ocean's parameter names.

    Without a cardinality, a model of n variables is solved as an unconstrained one, by
    :func:`problems.free.free`.

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
        """Parameters of ``sample``: those of Ocean's that the solver supports."""
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
            One per initial state by default.
        seed : int, optional
        initial_states : samples-like, optional
            One per read; further reads start at the solver's default.
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
        labels = variable_order(bqm.variables)
        if k is None:
            problem = free(problem)
        states = parameters.pop("initial_states", None)
        starts = _starts(states, labels)
        if k is None:
            starts = [add_partners(start) for start in starts]
        solutions = self._solve(problem, starts, **parameters)
        answer = _sampleset(solutions, problem, labels)
        return answer.change_vartype(bqm.vartype, inplace=False)

    def sample_cqm(
        self, cqm: dimod.ConstrainedQuadraticModel, **parameters: Any
    ) -> dimod.SampleSet:
        """Sample from a constrained model whose constraints are cardinalities, or a budget.

        Parameters are those of :meth:`sample`, without ``k``.

        Raises
        ------
        FormatError
            If a constraint is of another kind.
        """
        problem, labels = from_cqm(cqm), variable_order(cqm.variables)
        starts = _starts(parameters.pop("initial_states", None), labels)
        return _sampleset(self._solve(problem, starts, **parameters), problem, labels)

    def _solve(self, problem: Problem, starts: list[Any], **parameters: Any) -> list[Solution]:
        """Solve once per start, and once for all reads without a start."""
        reads, limit = parameters.pop("num_reads", None), parameters.pop("time_limit", None)
        seed = parameters.pop("seed", None)
        self.remove_unknown_kwargs(**parameters)
        reads = max(1, len(starts)) if reads is None else checked_reads(reads)
        limit = None if limit is None else checked_seconds(limit)
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


def _starts(states: Any, labels: Sequence[Hashable]) -> list[np.ndarray[Any, Any]]:
    """Convert Ocean's initial states, of either vartype, to 0/1."""
    if states is None:
        return []
    samples, names = dimod.as_samples(states)
    names = list(names)
    if set(names) != set(labels):
        raise OptionError("initial_states and the model have different variables")
    return list((samples[:, [names.index(label) for label in labels]] > 0).astype(np.uint8))


def _sampleset(
    solutions: list[Solution], problem: Problem, labels: list[Hashable]
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
