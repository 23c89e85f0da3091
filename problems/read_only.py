"""Read-only copies of problems, for untrusted code."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from problems.checks import is_tensor
from problems.quadratic import BinaryQuadratic

Problem = TypeVar("Problem", bound=BinaryQuadratic)


def read_only_problem(problem: Problem) -> Problem:
    """Return a copy whose arrays are read-only views of the problem's own.

    Setting an attribute on the copy does not change the problem either. Tensors can't be made
    read-only: those on a device are copied.

    Parameters
    ----------
    problem : CardinalityQUBO or BudgetQUBO

    Returns
    -------
    CardinalityQUBO or BudgetQUBO
        Of the same class.
    """
    copy = object.__new__(type(problem))
    held = problem.__getstate__()
    copy.__dict__.update({name: _sealed(value) for name, value in held.items()})
    return copy


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a read-only view."""
    view = array.view()
    view.flags.writeable = False
    return view


def _sealed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return read_only(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # Arrays or Tensors
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: _sealed(part) for name, part in parts.items()})
    if is_tensor(value):
        return value.clone()
    return value
