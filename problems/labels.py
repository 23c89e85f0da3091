"""Names of variables: what may be one, and how JSON and text show them.

A name is a string, a number, or a tuple of names: what LP and MPS texts and dimod's models use,
and what JSON can hold (a tuple as a list), so that no file needs pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from problems.errors import InvalidProblemError

Labels = tuple[Hashable, ...]

#: Tuples within tuples that a name may have.
DEPTH = 32


def checked_labels(labels: Any, n: int) -> Labels | None:
    """Return the names of n variables, or None if they are numbered 0 … n - 1.

    Raises
    ------
    InvalidProblemError
        If there are not n of them, two are equal, or one is of another kind.
    """
    if labels is None:
        return None
    if isinstance(labels, str | bytes):
        raise InvalidProblemError(f"labels is {labels!r:.40}; pass a sequence of {n} names")
    names = tuple(_plain(label) for label in labels)
    if len(names) != n:
        raise InvalidProblemError(f"there are {len(names)} labels for {n} variables")
    if len(set(names)) != n:
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise InvalidProblemError(f"the label {twice!r:.40} comes twice; names must be distinct")
    return None if all(type(name) is int for name in names) and names == tuple(range(n)) else names


def to_json(labels: Labels) -> str:
    """Write names as a JSON list; a tuple becomes a list."""
    return json.dumps(labels)


def from_json(text: str | bytes) -> list[Any]:
    """Read what :func:`to_json`, or dimod, wrote.

    Raises
    ------
    ValueError
        If it is not JSON, or no list, or nested too deep.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("lists are nested too deep") from None
    if not isinstance(found, list):
        raise ValueError(f"a {type(found).__name__} stands where a list of names should")
    return nested_tuples(found)


def nested_tuples(values: list[Any], depth: int = 0) -> list[Any]:
    """Turn the inner lists of parsed JSON into tuples.

    Raises
    ------
    ValueError
        If they are nested deeper than :data:`DEPTH`.
    """
    if depth > DEPTH:
        raise ValueError("lists are nested too deep")
    return [tuple(nested_tuples(v, depth + 1)) if isinstance(v, list) else v for v in values]


def display_names(labels: Labels | None, n: int) -> list[str]:
    """Return a distinct text of one line for each variable: a string as it is, others as JSON."""
    if labels is None:
        return list(map(str, range(n)))
    plain = [
        label if isinstance(label, str) and label.isprintable() else to_json((label,))[1:-1]
        for label in labels
    ]
    if len(set(plain)) == n:
        return plain
    return [to_json((label,))[1:-1] for label in labels]  # the number 1 and the string "1"


def text_names(labels: Labels | None, n: int, valid: Callable[[str], bool]) -> list[str]:
    """Return names that a text format can hold: the labels if all are valid, else ``x0 …``."""
    if labels is not None:
        strings = [label for label in labels if isinstance(label, str) and valid(label)]
        if len(strings) == n:
            return strings
    return [f"x{i}" for i in range(n)]


def labels_from_names(names: Sequence[str]) -> Sequence[str] | None:
    """Return names that were read, or None for ``x0 … x(n-1)``, which :func:`text_names` makes."""
    return None if list(names) == [f"x{i}" for i in range(len(names))] else names


def _plain(label: Any, depth: int = 0) -> Hashable:
    """Bring one name to Python's own types."""
    if isinstance(label, tuple):
        if depth == DEPTH:
            raise InvalidProblemError(f"a label is nested deeper than {DEPTH} tuples")
        return tuple(_plain(part, depth + 1) for part in label)
    if isinstance(label, bool | int | np.integer | np.bool_):
        return int(label)
    if isinstance(label, float | np.floating) and math.isfinite(label):
        return float(label)
    if isinstance(label, str):
        return str(label)
    raise InvalidProblemError(
        f"the label {label!r:.40} is a {type(label).__name__}; names are strings, finite numbers, "
        "or tuples of them"
    )
