"""Names of variables: validation, and conversion to JSON and text.

A name is a string, a number, or a tuple of names. LP and MPS texts and dimod's models use these,
and JSON can hold them (a tuple as a list), so that files don't need pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from problems.errors import InvalidProblemError

Labels = tuple[Hashable, ...]

#: Largest nesting depth of tuples in a name.
DEPTH = 32


def checked_labels(labels: Any, n: int) -> Labels | None:
    """Validate the names of n variables; return None if they are 0 … n - 1.

    Raises
    ------
    InvalidProblemError
        If there are not n names, two are equal, or one has another type.
    """
    if labels is None:
        return None
    if isinstance(labels, str | bytes):
        raise InvalidProblemError(f"labels is {labels!r:.40}; pass a sequence of {n} names")
    names = tuple(_plain(label) for label in labels)
    if len(names) != n:
        raise InvalidProblemError(
            f"there are {len(names)} labels for {n} variables; pass one for each"
        )
    if len(set(names)) != n:
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise InvalidProblemError(f"duplicate label {twice!r:.40}; names must be distinct")
    return None if all(type(name) is int for name in names) and names == tuple(range(n)) else names


def to_json(labels: Labels) -> str:
    """Write names as a JSON list; a tuple becomes a list."""
    return json.dumps(labels)


def from_json(text: str | bytes) -> list[Any]:
    """Read names written by :func:`to_json` or dimod.

    Raises
    ------
    ValueError
        If the text is not JSON or not a list, or is nested too deep.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("lists are nested too deep") from None
    if not isinstance(found, list):
        raise ValueError(f"expected a list of names, found a {type(found).__name__}")
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
    """Return one distinct line of text per variable: strings unchanged, other names as JSON."""
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
    """Return names for a text format: the labels if all are valid, else ``x0 …``."""
    if labels is not None:
        strings = [label for label in labels if isinstance(label, str) and valid(label)]
        if len(strings) == n:
            return strings
    return [f"x{i}" for i in range(n)]


def labels_from_names(names: Sequence[str]) -> Sequence[str] | None:
    """Return names that were read, or None for the default ``x0 … x(n-1)``."""
    return None if list(names) == [f"x{i}" for i in range(len(names))] else names


def _plain(label: Any, depth: int = 0) -> Hashable:
    """Convert one name to Python's own types."""
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
