"""Validation of what a solver returns: every field is checked and copied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import InvalidProblemError
from problems.checks import as_array
from solvers.base import Outcome, Problem, State
from solvers.errors import BackendError
from solvers.solution import Stop

#: Largest number of entries of all samples; more are refused (1 GiB).
_MOST = 1 << 30
#: Largest nesting depth of ``info``, and length of the text of an object in it.
_DEEPEST, _LONGEST = 8, 200


def validate_outcome(solver: str, problem: Problem, raw: Any) -> Outcome:
    """Return a checked outcome, with arrays that nothing else refers to.

    Parameters
    ----------
    solver : str
        The solver's name.
    problem : Problem
        The problem that was solved.
    raw : object
        Return value of :meth:`solvers.Solver.run`.

    Raises
    ------
    BackendError
        Naming the solver and the field that does not match :class:`solvers.Outcome`.
    """
    if not isinstance(raw, Outcome):
        raise BackendError(f"solver {solver!r} returned {_kind(raw)}; expected an Outcome")
    samples = _samples(solver, problem, raw.samples)
    if not isinstance(raw.stop, Stop):
        raise _wrong(solver, "stop", raw.stop, "a solvers.Stop")
    if not isinstance(raw.proven, bool | np.bool_):
        raise _wrong(solver, "proven", raw.proven, "True or False")
    if not isinstance(raw.info, Mapping):
        raise _wrong(solver, "info", raw.info, "a dict")
    return Outcome(
        samples,
        raw.stop,
        proven=bool(raw.proven),
        bound=_bound(solver, raw.bound),
        build_seconds=_seconds(solver, "build_seconds", raw.build_seconds),
        decode_seconds=_seconds(solver, "decode_seconds", raw.decode_seconds),
        repaired=_repaired(solver, raw.repaired, len(samples)),
        info={str(key): plain(value) for key, value in raw.info.items()},
    )


def is_plain(value: Any) -> bool:
    """Whether an option can be serialised; backends and samplers can't."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float)


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy made of types of Python and NumPy; other objects become text.

    Answers can then be pickled and saved, whatever a backend reports.
    """
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
        return value.copy()
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {_key(k): plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            items = [plain(item, depth + 1) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str):  # subclasses, such as an Enum with values
        if isinstance(value, kind):
            return kind(value)
    return str(value)[:_LONGEST]


def _key(key: Any) -> str | int | float | bool | None:
    """Return a valid key of JSON."""
    held = key.item() if isinstance(key, np.generic) else key
    return held if held is None or type(held) in (bool, int, float, str) else str(held)[:_LONGEST]


def _samples(solver: str, problem: Problem, values: Any) -> State:
    try:
        held = as_array(values, "samples")
        if held.size > _MOST:
            raise InvalidProblemError(f"{held.shape} states are more than {_MOST} entries")
        # Copied before the checks: the solver may still write to the original.
        return np.atleast_2d(problem.as_states(np.array(held)))
    except InvalidProblemError as error:
        raise BackendError(f"solver {solver!r} returned invalid states: {error}") from error


def _repaired(solver: str, values: Any, reads: int) -> npt.NDArray[np.bool_] | None:
    if values is None:
        return None
    marks = np.array(values)
    if marks.shape != (reads,) or marks.dtype != bool:
        wanted = f"None, or bool of shape ({reads},), one for each sample"
        raise _wrong(solver, "repaired", f"{marks.dtype} of shape {marks.shape}", wanted)
    return marks


def _bound(solver: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool):
        raise _wrong(solver, "bound", value, "None or a number")
    bound = float(value)
    if math.isnan(bound) or bound == math.inf:
        raise _wrong(solver, "bound", value, "None or a finite number")
    return None if bound == -math.inf else bound


def _seconds(solver: str, name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
        raise _wrong(solver, name, value, "a number of seconds, 0 or more")
    return float(value)


def _wrong(solver: str, name: str, value: Any, wanted: str) -> BackendError:
    shown = value if isinstance(value, str) else _kind(value)
    return BackendError(
        f"solver {solver!r} returned an Outcome whose {name} is {shown}; it must be {wanted}"
    )


def _kind(value: Any) -> str:
    """Describe a value: numbers and None by value, others by type."""
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    return f"a {type(value).__name__}"
