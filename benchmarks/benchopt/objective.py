"""The gap of a state to the best energy known, from the status quo."""

from __future__ import annotations

import math
from typing import Any

from benchopt import BaseObjective

from problems import CardinalityQUBO


class Objective(BaseObjective):
    """Minimise ``xᵀQx`` over ``x ∈ {0,1}ⁿ`` with ``Σx = k``, on blocks that pruning makes."""

    name = "Cardinality-constrained QUBO"
    min_benchopt_version = "1.10"
    #: A run hands its whole curve back, so that one run is the curve.
    sampling_strategy = "run_once"
    test_dataset_name = "library"
    test_config = {"dataset": {"problem": "garment-2-12-early"}}  # noqa: RUF012

    def set_data(
        self,
        problem: CardinalityQUBO,
        start: Any,
        start_energy: float,
        best_energy: float,
        name: str,
    ) -> None:
        """Take a problem with its status quo and the best energy known."""
        self.problem, self.start, self.name_of_problem = problem, start, name
        self.start_energy, self.best_energy = start_energy, best_energy

    def get_objective(self) -> dict[str, Any]:
        """Return what a solver is given."""
        return {"problem": self.problem, "start": self.start}

    def evaluate_result(
        self, trace: list[list[float]], end: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return a row for each incumbent, and one for the end of the run.

        ``value`` is the gap: 0 at the best energy known, 1 at the status quo and before the
        first feasible state. Energies themselves are negative and of any size, which tells
        benchopt nothing of convergence.
        """
        energy = end.get("energy")
        steps = [*trace, [end["seconds"], math.nan if energy is None else energy]]
        proved = [0] * len(trace) + [int(end.get("known") == "optimal")]
        return [
            {"value": self.gap(energy), "seconds": seconds, "energy": energy, "proved": proof}
            for (seconds, energy), proof in zip(steps, proved, strict=True)
        ]

    def gap(self, energy: float) -> float:
        """Return (E - E*) / (E₀ - E*), 1 without a state."""
        if not math.isfinite(energy):
            return 1.0
        span = self.start_energy - self.best_energy
        above = max(0.0, energy - self.best_energy)
        return min(above / span, 1.0) if span > 0 else float(above > 0)

    def get_one_result(self) -> dict[str, Any]:
        """Return the status quo, as a solver would."""
        end = {"seconds": 0.0, "energy": self.start_energy}
        return {"trace": [[0.0, self.start_energy]], "end": end}
