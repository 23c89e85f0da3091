"""The native file format: a NumPy ``.npz`` without pickle.

Entries: ``format`` (a version string), ``cardinalities`` (one integer per group), ``groups``
(only with several groups), ``offset``, ``labels`` (only with names; a JSON list), and either
``Q`` (symmetric, both triangles) or ``A`` and ``linear`` for ``Q = AᵀA + diag(linear)``.
Variables count from 0; reading restores every bit, with dtype and form.

A :class:`problems.BudgetQUBO` has the format ``icbs-budget-qubo-1`` and, in place of
``cardinalities``, the entries ``costs``, ``budget``, ``least`` and ``most`` (one integer per
group).

Optional entries of a :class:`problems.Instance`: ``start`` and ``answer`` (states, shape (n,)) and
``about`` (a JSON object). Earlier versions refuse files with these entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from problems.archive import read_arrays
from problems.errors import FormatError
from problems.files import atomic
from problems.labels import from_json, to_json

if TYPE_CHECKING:
    from problems.quadratic import BinaryQuadratic

FORMAT = "icbs-qubo-1"
BUDGET_FORMAT = "icbs-budget-qubo-1"

#: Dtype kinds and number of dimensions of each entry.
_ENTRIES = {
    "format": ("U", 0),
    "cardinalities": ("iu", 1),
    "groups": ("iu", 1),
    "offset": ("f", 0),
    "labels": ("U", 0),
    "Q": ("f", 2),
    "A": ("f", 2),
    "linear": ("f", 1),
    "costs": ("f", 1),
    "budget": ("f", 0),
    "least": ("iu", 1),
    "most": ("iu", 1),
    "start": ("u", 1),
    "answer": ("u", 1),
    "about": ("U", 0),
}
#: Optional entries of an instance.
_KNOWN = ("start", "answer", "about")


def fields_of(problem: BinaryQuadratic) -> dict[str, Any]:
    """Return the entries of a problem for :func:`write`."""
    form = {"A": problem.A, "linear": problem.linear} if problem.is_factored else {"Q": problem.Q}
    constraint = dict(problem.constraint)
    if "k" in constraint:
        constraint = {"cardinalities": constraint.pop("k")} | constraint
    if problem.num_groups == 1:
        constraint["groups"] = None
    return {
        **constraint,
        "offset": problem.offset,
        **form,
        "labels": None if problem.labels is None else to_json(problem.labels),
    }


def write(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write entries to ``path`` atomically; entries that are None are omitted."""
    arrays = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    format = np.array(BUDGET_FORMAT if "costs" in fields else FORMAT)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, format=format, **arrays)


def largest_size(fields: Mapping[str, Any]) -> int:
    """Return an upper bound on the size of a file in bytes; Deflate adds less than 0.1 %."""
    sizes = [np.asarray(value).nbytes for value in fields.values() if value is not None]
    return sum(size + size // 100 + 1024 for size in sizes) + 1024


def read(path: str | Path) -> dict[str, Any]:
    """Read the entries of a file, by the names of the arguments of its problem's class.

    Checks the types and dimensions of the arrays; :meth:`problems.CardinalityQUBO.load` checks
    that they form a valid problem.

    Raises
    ------
    FormatError
        If the file is damaged, has another format, lacks an entry, or unpacks to far more than
        its size.
    FileNotFoundError
        If there is no such file.
    """
    arrays = _read(path)
    try:
        form = ("Q",) if "Q" in arrays else ("A", "linear")
        return {
            **_constraint(arrays),
            "offset": float(arrays["offset"]),
            "labels": from_json(str(arrays["labels"])) if "labels" in arrays else None,
            **{name: arrays[name] for name in form},
        }
    except KeyError as error:
        raise FormatError(f"{path} is not a valid problem: the entry {error} is missing") from error
    except ValueError as error:
        raise FormatError(f"{path} has labels that can't be read: {error}") from error


def has_budget(path: str | Path) -> bool:
    """Whether a file holds a :class:`problems.BudgetQUBO`, without reading its coefficients.

    Raises
    ------
    FormatError, FileNotFoundError
        As :func:`read`.
    """
    return "budget" in _read(path, ("budget",))


def _constraint(arrays: Mapping[str, Any]) -> dict[str, Any]:
    groups = arrays.get("groups")
    if "cardinalities" not in arrays and "costs" in arrays:
        counts = {name: arrays[name] for name in ("costs", "least", "most")}
        return {**counts, "budget": float(arrays["budget"]), "groups": groups}
    wanted = arrays["cardinalities"]
    return {
        "k": int(wanted[0]) if groups is None and len(wanted) == 1 else wanted,
        "groups": groups,
    }


def read_known(path: str | Path) -> dict[str, Any]:
    """Read the optional entries of an instance, without the coefficients.

    Returns
    -------
    dict
        ``start`` and ``answer`` (arrays, not checked against the problem) and the text of
        ``about``; None for missing entries.

    Raises
    ------
    FormatError, FileNotFoundError
        As :func:`read`.
    """
    arrays = _read(path, _KNOWN)
    about = arrays.pop("about", None)
    states = {name: arrays.get(name) for name in ("start", "answer")}
    return states | {"about": None if about is None else str(about)}


def _read(path: str | Path, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Read all or some entries of a file of this format."""
    arrays = read_arrays(path, _ENTRIES, None if only is None else ("format", *only))
    if str(arrays.pop("format", None)) not in (FORMAT, BUDGET_FORMAT):
        raise FormatError(f"{path} is not a problem file: its 'format' entry is not {FORMAT!r}")
    return arrays
