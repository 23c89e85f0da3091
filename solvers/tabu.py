"""D-Wave's multistart tabu search of single flips on the penalised cost (dwave-samplers)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers.adapters.ocean import dense_bqm, no_states, sample_states
from solvers.base import Capabilities, Outcome, Request
from solvers.errors import OptionError
from solvers.penalised import Penalised
from solvers.solution import Stop

#: Under a time limit, a read gets at least this fraction of the remaining time: fewer, but useful
#: reads.
_READS_IN_LIMIT = 8


@dataclass(frozen=True)
class Tabu(Penalised):
    """Search with a tabu list and restarts (MST2, Palubeckis 2004), one read after another.

    Parameters
    ----------
    num_restarts : int
        Restarts of each read, after its first search.
    tenure : int, optional
        Length of the tabu list; a quarter of n and at most 20 by default.
    updates_first, updates_restart : int
        Flips considered per variable in the first search and in each restart.
    updates_least : int
        Smallest number of flips considered in each of them.
    """

    num_restarts: int = 5
    tenure: int | None = None
    updates_first: int = 1000
    updates_restart: int = 250
    updates_least: int = 100_000

    name: ClassVar[str] = "tabu"
    summary: ClassVar[str] = "D-Wave's multistart tabu search on the penalised cost"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_n=1024, native_cardinality=False, groups=True, budgets=True
    )
    requires: ClassVar[dict[str, str]] = {
        "dwave.samplers": "dwave-samplers>=1.4",
        "dimod": "dimod>=0.12.18",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("updates_first", "updates_restart", "updates_least"):
            if getattr(self, option) < 1:
                raise OptionError(f"{option} is {getattr(self, option)}; it must be 1 or more")
        if self.num_restarts < 0:
            raise OptionError(f"num_restarts is {self.num_restarts}; it must be 0 or more")

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Search ``num_reads`` times, or until the time limit."""
        from dwave.samplers import TabuSampler

        begin = time.perf_counter()
        rng = np.random.default_rng(request.seed)
        bqm = dense_bqm(form)
        start = request.initial_state
        build = time.perf_counter() - begin
        states = [no_states(form.n)]
        for read in range(request.num_reads):
            if read and request.remaining == 0:
                break
            share = request.remaining / min(request.num_reads - read, _READS_IN_LIMIT)
            timeout: Any = None if request.time_limit is None else max(1, int(1000 * share))
            answer = TabuSampler().sample(
                bqm,
                initial_states=None if start is None else (start.astype(np.int8), range(form.n)),
                seed=int(rng.integers(2**32)),
                tenure=self.tenure,
                num_restarts=self.num_restarts,
                timeout=timeout,
                coefficient_z_first=self.updates_first,
                coefficient_z_restart=self.updates_restart,
                lower_bound_z=self.updates_least,
            )
            states.append(sample_states(answer, form.n))
        return Outcome(
            np.concatenate(states),
            Stop.TIME_LIMIT if request.remaining == 0 else Stop.ITERATION_LIMIT,
            build_seconds=build,
        )
