"""D-Wave's Leap hybrid solver for constrained models, with a native cardinality.

Credentials stay in Ocean's configuration; this module does not read, print or store them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from problems import BudgetQUBO, CardinalityQUBO
from problems.formats.bqm import to_cqm
from solvers.adapters.ocean import (
    call_within,
    check_ocean_config,
    no_states,
    open_sampler,
    sample_states,
)
from solvers.base import Capabilities, Outcome, Problem, Request, Solver
from solvers.errors import OptionError, UnsupportedError
from solvers.solution import Stop

#: Share of the time limit for the search in the cloud; the rest is for communication.
_SEARCH_SHARE = 0.8


@dataclass(frozen=True)
class Hybrid(Solver):
    """Send the problem as a constrained quadratic model, one equality for each group.

    Parameters
    ----------
    sampler : object with ``sample_cqm``, optional
        ``LeapHybridCQMSampler()`` by default, which reads the user's own Ocean
        configuration; dimod's ``ExactCQMSolver`` suffices for small problems.
    """

    sampler: Any = None

    name: ClassVar[str] = "hybrid"
    summary: ClassVar[str] = "D-Wave's Leap hybrid solver, with a native cardinality"
    capabilities: ClassVar[Capabilities] = Capabilities(
        hardware="cloud",
        groups=True,
        budgets=True,
        deterministic=False,
        seed=False,
        initial_state=False,
        num_reads=False,
    )
    requires: ClassVar[dict[str, str]] = {"dwave.system": "dwave-system>=1.24"}

    def __post_init__(self) -> None:
        if self.sampler is not None and not hasattr(self.sampler, "sample_cqm"):
            raise OptionError(f"sampler {type(self.sampler).__name__} has no sample_cqm")

    def check_ready(self) -> None:
        """Check for a token, unless a sampler was given."""
        if self.sampler is None:
            check_ocean_config()

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Check the limits, send the problem, and wait for the answer."""
        return self._run(problem, request)

    def _run(self, problem: Problem, request: Request) -> Outcome:
        sampler = (
            call_within(request, lambda: open_sampler("LeapHybridCQMSampler"))
            if self.sampler is None
            else self.sampler
        )
        if sampler is None:
            return Outcome(no_states(problem.n), Stop.TIME_LIMIT)
        try:
            return self._send(problem, sampler, request)
        finally:
            if self.sampler is None:
                sampler.close()

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Send the budget as an inequality, and the counts as further rows."""
        return self._run(problem, request)

    def _send(self, problem: Problem, sampler: Any, request: Request) -> Outcome:
        begin = time.perf_counter()
        properties = getattr(sampler, "properties", None) or {}
        most = properties.get("maximum_number_of_variables")
        if most is not None and problem.n > most:
            raise UnsupportedError(
                f"this hybrid solver takes at most {most} variables, the problem has {problem.n}"
            )
        cqm = to_cqm(problem, range(problem.n))
        asked = {}
        if request.time_limit is not None and hasattr(sampler, "min_time_limit"):
            least = sampler.min_time_limit(cqm)
            if request.remaining < least:
                raise UnsupportedError(
                    f"this hybrid solver searches for at least {least} s, but time_limit is "
                    f"{request.time_limit} s; ask for more, or choose a local solver"
                )
            asked["time_limit"] = max(least, _SEARCH_SHARE * request.remaining)
        build = time.perf_counter() - begin

        def answer() -> Any:
            sampleset = sampler.sample_cqm(cqm, **asked)
            sampleset.resolve()
            return sampleset

        sampleset = call_within(request, answer)
        if sampleset is None:
            return Outcome(no_states(problem.n), Stop.TIME_LIMIT, build_seconds=build)
        info = {key: sampleset.info[key] for key in _REPORTED if key in sampleset.info}
        states = sample_states(sampleset, problem.n)
        return Outcome(states, Stop.CONVERGED, build_seconds=build, info={"backend": info})


#: Reported keys of the cloud's answer.
_REPORTED = ("run_time", "qpu_access_time", "charge_time")
