"""D-Wave's simulated annealing of single flips on the penalised cost (dwave-neal)."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers.adapters.ocean import SPINS, dense_bqm, no_states, sample_states
from solvers.base import Capabilities, Outcome, Request, State
from solvers.errors import OptionError
from solvers.penalised import Penalised
from solvers.scaling import scale_option
from solvers.solution import Stop

#: Flips per call of the sampler under a time limit, since a call can't be interrupted.
_FLIPS_PER_CALL = 1e8
#: Sweeps of the shortest anneal, and of the cold end of one whose time has run out.
_SHORTEST = 20


@dataclass(frozen=True)
class Neal(Penalised):
    """Anneal single flips, one read after another.

    Under a time limit, the schedule of each read is split into short calls, so that the limit can
    be kept, and the rest of the schedule is thinned if it would take too long.

    Parameters
    ----------
    num_sweeps : int
        Temperatures of a read, one sweep each.
    beta_range : (float, float), optional
        First and last inverse temperature. By default, derived from the flips of a random
        feasible state: hot enough for the largest increase of energy, cold enough to freeze the
        smallest and the penalty.
    """

    num_sweeps: int = 1000
    beta_range: tuple[float, float] | None = None

    name: ClassVar[str] = "neal"
    summary: ClassVar[str] = "D-Wave's simulated annealing on the penalised cost"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_n=1024, native_cardinality=False, groups=True, budgets=True
    )
    requires: ClassVar[dict[str, str]] = {"neal": "dwave-neal>=0.6", "dimod": "dimod>=0.12.18"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_sweeps < 1:
            raise OptionError(f"num_sweeps is {self.num_sweeps}; it must be 1 or more")
        if self.beta_range is not None and not 0 < self.beta_range[0] <= self.beta_range[1]:
            raise OptionError(f"beta_range is {self.beta_range}; it must be 0 < first <= last")

    def scaled(self, exponent: int) -> Neal:
        """Scale the inverse temperatures, if given, and the penalty."""
        solver = super().scaled(exponent)
        assert isinstance(solver, Neal)
        if self.beta_range is None:
            return solver
        hot, cold = (scale_option(beta, -exponent) for beta in self.beta_range)
        return dataclasses.replace(solver, beta_range=(hot, cold))

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Anneal ``num_reads`` times, or until the time limit."""
        begin = time.perf_counter()
        rng = np.random.default_rng(request.seed)
        reads = _Reads(dense_bqm(form, spin=True), request, rng)
        hot, cold = self.beta_range or _beta_range(form, penalty, rng)
        betas = np.geomspace(hot, cold, self.num_sweeps)
        build = time.perf_counter() - begin
        # Under a limit, a short anneal comes first: it measures the time of a call and gives an
        # answer.
        limited = request.time_limit is not None
        states, done = [reads(_thinned(betas, _SHORTEST)) if limited else no_states(form.n)], 0
        while done < request.num_reads and request.remaining > 2 * reads.slowest_call:
            states.append(reads(betas))
            done += 1
        return Outcome(
            np.concatenate(states),
            Stop.ITERATION_LIMIT if done == request.num_reads else Stop.TIME_LIMIT,
            build_seconds=build,
            info={"beta_range": (float(hot), float(cold))},
        )


class _Reads:
    """Reads of one model, split into calls short enough to keep the time limit."""

    def __init__(self, bqm: Any, request: Request, rng: np.random.Generator) -> None:
        self.bqm, self.request, self.rng = bqm, request, rng
        #: Seconds of the longest call so far.
        self.slowest_call = 0.0

    def __call__(self, betas: npt.NDArray[np.float64]) -> State:
        """Anneal with a schedule, thinned to fit the time limit; shape (1, n)."""
        n, start = self.bqm.num_variables, self.request.initial_state
        spins = self.rng.choice(SPINS, n) if start is None else 2 * start.astype(np.int8) - 1
        step = len(betas)
        if self.request.time_limit is not None:
            step = max(50, int(_FLIPS_PER_CALL / n**2))
        while len(betas):
            answer = self._call(spins, betas[:step])
            spins = answer.record.sample[0][np.argsort(list(answer.variables))]
            calls = self.request.remaining // self.slowest_call
            betas = _thinned(betas[step:], max(_SHORTEST, calls * step))
        return sample_states(answer, n)

    def _call(self, spins: Any, betas: npt.NDArray[np.float64]) -> Any:
        from neal import SimulatedAnnealingSampler

        begin = time.perf_counter()
        answer = SimulatedAnnealingSampler().sample(
            self.bqm,
            initial_states=(spins, range(len(spins))),
            beta_schedule_type="custom",
            beta_schedule=betas,
            seed=int(self.rng.integers(2**31)),
        )
        self.slowest_call = max(self.slowest_call, time.perf_counter() - begin)
        return answer


def _thinned(betas: npt.NDArray[np.float64], count: float) -> npt.NDArray[np.float64]:
    """Keep about ``count`` evenly spaced temperatures, including the coldest."""
    if count >= len(betas):
        return betas
    return betas[np.linspace(len(betas) - 1, 0, int(count)).round().astype(int)[::-1]]


def _beta_range(form: CardinalityQUBO, penalty: Penalty, rng: Any) -> tuple[float, float]:
    x = np.zeros(form.n, dtype=np.uint8)
    for members, k in zip(form.group_members, form.cardinalities, strict=True):
        x[rng.permutation(members)[:k]] = 1
    strength = penalty.strength[form.groups]
    # A flip changes the penalty by its strength; the field is the change of the cost.
    moves = np.abs(form.fields(x) - strength * (1.0 - 2.0 * x))
    hottest = float(np.quantile(moves, 0.95) + strength.max())
    coldest = min(float(np.quantile(moves, 0.01)), float(strength.max()) or np.inf) / 10
    if hottest == 0:
        return 1.0, 1.0
    coldest = float(np.clip(coldest, 1e-5 * hottest, 1e-2 * hottest))
    return 0.7 / hottest, 1 / coldest
