"""Polynomials and equality rows over named variables, as in LP and MPS texts."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from problems.budget import BudgetQUBO
from problems.formats.rows import problem_from_rows
from problems.formats.terms import Row, Terms, natural_order
from problems.labels import labels_from_names
from problems.qubo import CardinalityQUBO


@dataclass
class NamedTerms:
    """Terms read so far, with variables numbered in the order of their first use."""

    index: dict[str, int] = field(default_factory=dict)
    """Number of each variable."""
    linear: dict[int, float] = field(default_factory=dict)
    """Linear coefficients of the objective; 0 if missing."""
    first: array[int] = field(default_factory=lambda: array("q"))
    """First variable of each product."""
    second: array[int] = field(default_factory=lambda: array("q"))
    """Second variable of each product."""
    products: array[float] = field(default_factory=lambda: array("d"))
    """Whole coefficient of each product."""
    offset: float = 0.0
    maximize: bool = False
    rows: list[Row] = field(default_factory=list)
    """Rows of the constraint."""

    def variable(self, name: str) -> int:
        """Return the number of a variable, adding it if it is new."""
        return self.index.setdefault(name, len(self.index))

    def problem(
        self, k: Any, groups: Any, source: object, max_n: int | None
    ) -> CardinalityQUBO | BudgetQUBO:
        """Build the problem with its variables in :func:`~problems.formats.terms.natural_order`.

        Raises
        ------
        FormatError
            As :func:`problems.formats.rows.problem_from_rows`.
        """
        n = len(self.index)
        names = list(self.index)
        ranked = natural_order(names)
        place = np.empty(n, dtype=np.int64)
        place[ranked] = np.arange(n)
        linear = np.zeros(n)
        linear[place[list(self.linear)]] = list(self.linear.values())
        terms = Terms(
            place[np.array(self.first, dtype=np.int64)],
            place[np.array(self.second, dtype=np.int64)],
            np.array(self.products, dtype=np.float64),
            linear,
            self.offset,
        )
        rows = [row._replace(variables=place[list(row.variables)].tolist()) for row in self.rows]
        return problem_from_rows(
            terms,
            rows,
            k,
            groups,
            source=source,
            max_n=max_n,
            maximize=self.maximize,
            labels=labels_from_names([names[i] for i in ranked]),
        )
