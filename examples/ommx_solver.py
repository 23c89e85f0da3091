"""Any adapter of OMMX as a solver of one's own: SCIP, HiGHS, OpenJij, Amplify, D-Wave and others.

``pip install "icbs-pruning[ommx]" ommx-pyscipopt-adapter`` installs one adapter. In this folder,
``icbs solve block.npz --solver ommx_solver:OmmxSolver`` solves a problem with it, and
``--option adapter=MODULE:CLASS`` names another.

Adapters share one interface, ``solve(instance)``; what else they can do differs, so that a time
limit, a seed and a start are declared away here. The adapter must hold binaries with a quadratic
objective and equality constraints.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from problems import CardinalityQUBO
from problems.formats.ommx import to_instance
from solvers import Capabilities, MissingBackendError, OptionError, Outcome, Request, Solver, Stop


@dataclass(frozen=True)
class OmmxSolver(Solver):
    """A solver adapter of OMMX (``ommx.adapter.SolverAdapter``).

    Parameters
    ----------
    adapter : str
        ``module:Class``.
    """

    adapter: str = "ommx_pyscipopt_adapter:OMMXPySCIPOptAdapter"

    name: ClassVar[str] = "ommx"
    summary: ClassVar[str] = "an adapter of OMMX (an example)"
    requires: ClassVar[dict[str, str]] = {"ommx.v1": "ommx>=2.8,<3"}
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True,
        groups=True,
        time_limit=False,
        seed=False,
        initial_state=False,
        num_reads=False,
    )

    def __post_init__(self) -> None:
        if self.adapter.count(":") != 1:
            raise OptionError(f"adapter is {self.adapter!r}; it must read module:Class")

    def check_ready(self) -> None:
        """Load the adapter, before a pruning run starts any work."""
        self._adapter()

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Hand the instance over, and read the state back."""
        from ommx.v1 import Solution

        # Backends have absolute tolerances: coefficients are brought to the order of 1000.
        scale = 1000.0 / (float(np.abs(problem.Q).max()) or 1.0)
        scaled = CardinalityQUBO(
            problem.Q.astype(np.float64) * scale, problem.cardinalities, groups=problem.groups
        )
        solution = self._adapter().solve(to_instance(scaled))
        state = np.zeros((1, problem.n))
        for i, value in solution.state.entries.items():
            state[0, i] = round(value)
        proven = solution.optimality == Solution.OPTIMAL
        return Outcome(
            state.astype(np.uint8),
            Stop.PROVEN if proven else Stop.CONVERGED,
            proven=proven,
            info={"adapter": self.adapter},
        )

    def _adapter(self) -> Any:
        module, name = self.adapter.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            distribution = module.replace("_", "-")
            raise MissingBackendError(
                f"OMMX adapter {self.adapter} can't be loaded ({error}): pip install {distribution}"
            ) from error
