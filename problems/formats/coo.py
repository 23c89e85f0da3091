"""Coordinate text, lines ``i j value``, in its common dialects.

========= ===== ============================ ============================= ================
dialect   base  what ``i j v`` with i ≠ j is header                        sense
========= ===== ============================ ============================= ================
``ubqp``  1     ``Q_ij = Q_ji = v``: 2v·x_ix_j ``n m``, m lines follow     minimise
``mqlib`` 1     the same                     the same                      maximise
``qubo``  0     v·x_ix_j                     ``p qubo 0 n nodes couplers`` minimise
``coo``   0     v·x_ix_j                     none; n = largest index + 1   minimise
========= ===== ============================ ============================= ================

``ubqp`` is the file of the iCBS reference's annealer and of the Biq Mac library: each pair is
listed once, in either order, and stands for both triangles. ``mqlib`` is the same, but maximised.
``qubo`` is qbsolv's file and ``coo`` dimod's: there every line adds ``v x_i x_j``, so that upper
triangular and full symmetric matrices are both read correctly. A line ``i i v`` adds ``v x_i`` in
all of them.

dimod's header ``# vartype=SPIN`` is supported in ``coo``: the variables are then spins
``s = 2x - 1``, and the cardinality counts the spins that are +1. Without a header the variables
are binary. dimod's own reader drops numbers with an exponent, so none are written there; it reads
no offset.

No dialect has a field for the cardinality, so it is passed as ``k`` when reading, except for
files written here: these have comments ``# icbs offset 0.5``, ``# icbs cardinalities 2 1`` and,
with several groups, ``# icbs groups 0 0 1 …`` (``c`` instead of ``#`` in ``qubo``). The
reference's own reader accepts no comments: write with ``comments=False`` for it. A comment
``# icbs …`` that is unknown, or given twice with two values, is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from problems.budget import BudgetQUBO
from problems.errors import FormatError
from problems.files import regular, write_text
from problems.formats.terms import MISSING, NO_BUDGET, Indices, Terms, Vector, check_size
from problems.formats.text import number
from problems.qubo import CardinalityQUBO

_LINE = np.dtype([("i", np.int64), ("j", np.int64), ("value", np.float64)])
_VARTYPE = re.compile(r"vartype\s*+[:=]\s*+(\S*)")
_NOTES = ("offset", "cardinalities", "groups")


@dataclass(frozen=True)
class Dialect:
    """Conventions of a coordinate text."""

    base: int
    """Number of the first variable."""
    doubled: bool
    """Whether a pair stands for both triangles and is listed once."""
    header: str
    """``"counts"`` (``n m``), ``"program"`` (``p qubo …``) or ``""``."""
    maximize: bool = False
    comment: str = "#"
    ocean: bool = False
    """Whether a header may say ``vartype=SPIN``, and numbers have no exponents."""


DIALECTS = {
    "ubqp": Dialect(base=1, doubled=True, header="counts"),
    "mqlib": Dialect(base=1, doubled=True, header="counts", maximize=True),
    "qubo": Dialect(base=0, doubled=False, header="program", comment="c"),
    "coo": Dialect(base=0, doubled=False, header="", ocean=True),
}


def write(
    problem: CardinalityQUBO | BudgetQUBO,
    path: str | Path,
    dialect: str | Dialect = "ubqp",
    *,
    comments: bool = True,
    free: bool = False,
) -> None:
    """Write the problem as coordinate text.

    Parameters
    ----------
    dialect : str or Dialect
        A key of :data:`DIALECTS`, or other conventions.
    comments : bool, default True
        Write comments with offset, cardinalities and groups, which are lost otherwise.

    Raises
    ------
    FormatError
        If the problem has a budget.
    """
    form = _dialect(dialect)
    if isinstance(problem, BudgetQUBO):
        raise FormatError(NO_BUDGET)
    terms, n = Terms.of(problem), problem.n
    sign = -1.0 if form.maximize else 1.0
    pairs = sign * terms.values * (0.5 if form.doubled else 1.0)
    used = terms.linear != 0
    if not form.header and n:
        used[-1] = True  # without a header, the last line determines n
    nodes = np.flatnonzero(used)
    i = np.concatenate([nodes, terms.rows]) + form.base
    j = np.concatenate([nodes, terms.cols]) + form.base
    values = np.concatenate([sign * terms.linear[nodes], pairs])
    shown = map(_positional if form.ocean else repr, values.tolist())
    lines = list(map("{} {} {}".format, i.tolist(), j.tolist(), shown))
    header = {
        "counts": [f"{n} {len(lines)}"],
        "program": [f"p qubo 0 {n} {len(nodes)} {len(terms.rows)}"],
        "": [],
    }[form.header]
    notes = _notes(problem, form, sign, free) if comments else []
    write_text(path, "\n".join([*notes, *header, *lines, ""]))


def read(
    path: str | Path,
    dialect: str | Dialect = "ubqp",
    *,
    k: Any = None,
    groups: Any = None,
    max_n: int | None = None,
) -> CardinalityQUBO:
    """Read coordinate text.

    Parameters
    ----------
    dialect : str or Dialect
        A key of :data:`DIALECTS`, or other conventions.
    k, groups
        The cardinality, for a file without a comment that contains it.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the text is damaged or truncated, an index is out of range, an entry is listed twice or
        not finite, or the problem is too large for the file.
    FileNotFoundError
        If there is no such file.
    """
    form, notes = _dialect(dialect), dict[str, str]()
    try:
        with open(regular(path), encoding="ascii") as file:
            lines = _data(file, form, notes, path)
            header = next(lines, None) if form.header else ""
            if header is None:
                raise FormatError(f"{path} is truncated: it has no header")
            table = _table(lines)
    except FormatError:
        raise
    except (ValueError, DeprecationWarning) as error:
        raise FormatError(f"{path} is not coordinate text: {error!s:.200}") from error
    n = _size(header.split(), table, form, path)
    check_size(n, len(table), path, max_n)
    offset = number(notes["offset"], f"{path}, comment 'offset'") if "offset" in notes else 0.0
    terms = _terms(table, n, offset, form, notes.get("vartype") == "SPIN", path)
    if "cardinalities" in notes:
        if k is not None:
            raise FormatError(f"{path} contains a cardinality; omit k, groups and free")
        wanted = _integers(notes["cardinalities"], "cardinalities", path)
        groups = _integers(notes["groups"], "groups", path) if "groups" in notes else None
        k = int(wanted[0]) if groups is None and len(wanted) == 1 else wanted
    if k is None:
        raise FormatError(f"{path} has no cardinality; {MISSING}")
    return terms.problem(k, groups, source=path, max_n=max_n, maximize=form.maximize)


def _dialect(dialect: str | Dialect) -> Dialect:
    if isinstance(dialect, Dialect):
        return dialect
    try:
        return DIALECTS[dialect]
    except KeyError:
        raise FormatError(f"unknown dialect {dialect!r}; one of {', '.join(DIALECTS)}") from None


def _notes(problem: CardinalityQUBO, form: Dialect, sign: float, free: bool) -> list[str]:
    """Return the comments with the cardinality and offset."""
    start = f"{form.comment} icbs"
    lines = [
        *([f"{form.comment} vartype=BINARY"] if form.ocean else []),
        f"{start} offset {sign * problem.offset!r}",
    ]
    if not free:
        lines.append(f"{start} cardinalities {' '.join(map(str, problem.cardinalities.tolist()))}")
    if problem.num_groups > 1 and not free:
        lines.append(f"{start} groups {' '.join(map(str, problem.groups.tolist()))}")
    return lines


def _positional(value: float) -> str:
    """Format a number exactly, without an exponent."""
    return np.format_float_positional(value, trim="0")


def _data(
    lines: Iterable[str], form: Dialect, notes: dict[str, str], path: str | Path
) -> Iterator[str]:
    """Yield the lines that are neither empty nor comments; store comments in ``notes``."""
    for line in lines:
        text = line.lstrip()
        if text.startswith(form.comment):
            if note := _note(text, form, path):
                name, value = note
                if notes.setdefault(name, value) != value:
                    raise FormatError(f"{path}: two comments give different values of '{name}'")
        elif text:
            yield line


def _note(comment: str, form: Dialect, path: str | Path) -> tuple[str, str] | None:
    """Parse a comment: return the name and value of a note, or None."""
    words = comment.strip().split(maxsplit=3)
    if words[:2] == [form.comment, "icbs"]:
        name, value = [*words[2:], "", ""][:2]
        if name not in _NOTES:
            raise FormatError(f"{path}: unknown comment {comment.strip()!r:.60}")
        return name, value
    if found := _VARTYPE.search(comment):
        if found[1] not in (("BINARY", "SPIN") if form.ocean else ("BINARY",)):
            raise FormatError(f"{path}: unsupported type of variables {found[1]!r:.30}")
        return "vartype", found[1]
    return None


def _table(lines: Iterator[str]) -> Any:
    """Parse the remaining lines, in memory proportional to their number."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # "1.5" as an index
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        return np.loadtxt(lines, dtype=_LINE, comments=None, ndmin=1)


def _size(header: list[str], table: Any, form: Dialect, path: str | Path) -> int:
    """Return n, after checking the header's counts against the number of lines."""
    shape = {"counts": (2, [0, 1]), "program": (6, [3, 4, 5])}
    if not form.header:
        return int(max(table["i"].max(initial=-1), table["j"].max(initial=-1))) + 1 - form.base
    length, places = shape[form.header]
    words = [header[place] for place in places if place < len(header)]
    starts = length == 2 or header[:2] == ["p", "qubo"]
    whole = all(re.fullmatch(r"[+-]?\d{1,18}", word) for word in words)
    if len(header) != length or not starts or not whole:
        wanted = "n m" if length == 2 else "p qubo 0 n nodes couplers"
        raise FormatError(f"{path} has the header {' '.join(header)!r:.60}; expected {wanted}")
    n, *counts = map(int, words)
    if sum(counts) != len(table) or n < 0:
        raise FormatError(
            f"{path} claims {n} variables and {sum(counts)} entries but has {len(table)} "
            "entries; it is truncated or damaged"
        )
    return n


def _terms(
    table: Any, n: int, offset: float, form: Dialect, spins: bool, path: str | Path
) -> Terms:
    """Check the entries and convert them to whole coefficients of binaries."""
    i: Indices = table["i"] - form.base
    j: Indices = table["j"] - form.base
    values: Vector = table["value"].copy()

    def refuse(bad: Any, why: str) -> None:
        if bad.any():
            entry = int(np.flatnonzero(bad)[0])
            shown = " ".join(str(part) for part in table[entry])
            raise FormatError(f"{path}: entry {entry + 1} ({shown}) {why}")

    last = n - 1 + form.base
    refuse(~np.isfinite(values), "is not finite")
    refuse((i < 0) | (i >= n) | (j < 0) | (j >= n), f"lies outside {form.base} … {last}")
    key = np.minimum(i, j) * n + np.maximum(i, j) if form.doubled else i * n + j
    ranked = np.argsort(key, kind="stable")
    again = np.zeros(len(key), dtype=bool)
    again[ranked[1:]] = np.diff(key[ranked]) == 0
    hint = "; in this dialect each pair stands for both triangles" if form.doubled else ""
    refuse(again, f"is listed twice{hint}")
    if form.doubled:
        with np.errstate(over="ignore"):  # refused when the problem is built
            values[i != j] *= 2
    if not spins:
        return Terms(i, j, values, np.zeros(n), offset)
    pair, fields = i != j, np.zeros(n)
    np.add.at(fields, i[~pair], values[~pair])
    return Terms.of_spins(i[pair], j[pair], values[pair], fields, offset)


def _integers(text: str, name: str, path: str | Path) -> Indices:
    try:
        if not re.fullmatch(r"[-+0-9\s]*+", text):
            raise ValueError
        return np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError):
        raise FormatError(
            f"{path}: the comment '{name}' is not a list of integers: {text.strip()!r:.60}"
        ) from None
