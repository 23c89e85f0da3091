"""Reading of ``.npz`` files with either constraint."""

from __future__ import annotations

from pathlib import Path

from problems import npz
from problems.budget import BudgetQUBO
from problems.qubo import CardinalityQUBO


def load_problem(path: str | Path) -> CardinalityQUBO | BudgetQUBO:
    """Read a problem with a cardinality or a budget; see :mod:`problems.npz`.

    Raises
    ------
    FormatError
        If the file is damaged, has another format, or is not a valid problem.
    FileNotFoundError
        If there is no such file.
    """
    return (BudgetQUBO if npz.has_budget(path) else CardinalityQUBO).load(path)
