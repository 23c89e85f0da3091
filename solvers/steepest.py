"""D-Wave's steepest descent of single flips on the penalised cost (dwave-samplers)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers.adapters.ocean import SPINS, dense_bqm, no_states, sample_states
from solvers.base import Capabilities, Outcome, Request
from solvers.penalised import Penalised
from solvers.solution import Stop

#: Flips evaluated per call of the sampler, since a call can't be interrupted.
_FLIPS_PER_CALL = 1e7


@dataclass(frozen=True)
class Steepest(Penalised):
    """Descend from random states by the best single flip; a fast, weak baseline.

    The first read starts from the initial state, if given.
    """

    name: ClassVar[str] = "steepest"
    summary: ClassVar[str] = "D-Wave's steepest descent on the penalised cost; a baseline"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_n=1024, native_cardinality=False, groups=True, budgets=True
    )
    requires: ClassVar[dict[str, str]] = {
        "dwave.samplers": "dwave-samplers>=1.4",
        "dimod": "dimod>=0.12.18",
    }

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Descend ``num_reads`` times, or until the time limit."""
        from dwave.samplers import SteepestDescentSampler

        begin = time.perf_counter()
        rng = np.random.default_rng(request.seed)
        bqm = dense_bqm(form, spin=True)
        build = time.perf_counter() - begin
        states = [no_states(form.n)]
        chunk = max(1, int(_FLIPS_PER_CALL / form.n**2))
        for done in range(0, request.num_reads, chunk):
            if done and request.remaining == 0:
                break
            spins = rng.choice(SPINS, size=(min(chunk, request.num_reads - done), form.n))
            if done == 0 and request.initial_state is not None:
                spins[0] = 2 * request.initial_state.astype(np.int8) - 1
            answer = SteepestDescentSampler().sample(bqm, initial_states=(spins, range(form.n)))
            states.append(sample_states(answer, form.n))
        found = np.concatenate(states)
        cut = len(found) < request.num_reads
        return Outcome(found, Stop.TIME_LIMIT if cut else Stop.CONVERGED, build_seconds=build)
