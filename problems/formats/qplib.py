"""QPLIB text (Furini et al., Math. Prog. Comp. 11, 2019, appendix B).

Conventions: every entry ``i j v`` of the objective's list means ``½ v x_i x_j``, also off the
diagonal. The appendix, whose objective is ``½ xᵀQ⁰x + b⁰ᵀx + q⁰`` with the lower triangle of a
symmetric ``Q⁰``, could be read as ``v x_i x_j`` there. The library's files use the half: their LP
versions have the same numbers within ``[ … ] / 2``, and only then do the published points have
their published values. Indices count from 1, the first one is the larger; vectors are a default
value and the entries that differ. Linear terms are written to ``b⁰``.

Supported are problems over binaries (``?B?``) with linear constraints or none (``??L``, ``??N``,
``??B``), whose rows are cardinalities. The sections after the right-hand sides (starting point,
duals, names) are not used, and may be missing; if present, they must be complete, since errors in
the counts before them show up there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from problems.errors import FormatError
from problems.files import regular, write_text
from problems.formats.terms import (
    BUDGET_REMEDY,
    Row,
    Terms,
    cardinality_rows,
    check_size,
    choose_cardinality,
)
from problems.formats.text import extended, is_number, number, whole
from problems.qubo import CardinalityQUBO

_Parse = Callable[[str, object], float]


def write(problem: CardinalityQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the problem as QPLIB text of type ``QBL``.

    The first letter is L without couplings; the last one is N without variables or a cardinality.

    Parameters
    ----------
    free : bool, default False
        Omit the cardinality.

    Raises
    ------
    FormatError
        If a coupling overflows when doubled.
    OSError
        If the file can't be written.
    """
    terms, n = Terms.of(problem), problem.n
    groups = cardinality_rows(problem, free)
    members = [f"{row} {i + 1} 1" for row, (_, group, _) in enumerate(groups, 1) for i in group]
    counts = [count for *_, count in groups]
    linear = np.flatnonzero(terms.linear)
    lines = [
        "icbs",
        f"{'Q' if len(terms.rows) else 'L'}B{'L' if groups else 'N'}",
        "minimize",
        f"{n} # variables",
    ]
    if groups:
        lines.append(f"{len(groups)} # constraints")
    if len(terms.rows):
        # Lower triangle: the second index of our pairs is the larger one.
        pairs = zip(terms.cols + 1, terms.rows + 1, terms.doubled().tolist(), strict=True)
        lines.append(f"{len(terms.rows)} # quadratic terms, each of a half")
        lines += [f"{h} {j} {value!r}" for h, j, value in pairs]
    lines += ["0.0 # default linear coefficient", f"{len(linear)} # others"]
    lines += [f"{i + 1} {float(terms.linear[i])!r}" for i in linear]
    lines.append(f"{terms.offset!r} # constant")
    if groups:
        lines += [f"{len(members)} # terms of the constraints", *members]
    lines.append("1e30 # infinity")
    for side in ("left", "right") if groups else ():
        lines += [f"0.0 # default {side}-hand side", f"{len(counts)} # others"]
        lines += [f"{row} {count}" for row, count in enumerate(counts, 1)]
    for what in ("starting point", *(["multiplier"] if groups else []), "reduced cost"):
        lines += [f"0.0 # default {what}", "0 # others"]
    lines += ["0 # names of variables", "0 # names of constraints", ""]
    write_text(path, "\n".join(lines))


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Read a QPLIB file whose constraints are cardinalities over binaries.

    Parameters
    ----------
    k, groups
        The cardinality, for a file without constraints.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the text is damaged, truncated, or describes another kind of problem.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with open(regular(path), encoding="utf-8") as file:
            return _Reader(file, path).problem(k, groups, max_n)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not a QPLIB text: {error}") from error


class _Reader:
    """Parser of the values of a QPLIB text, line by line."""

    def __init__(self, lines: Iterator[str], path: str | Path) -> None:
        self.lines, self.path, self.line, self.text = lines, path, 0, ""

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.line}"

    def more(self) -> bool:
        """Advance to the next line that is not empty or a comment; return False at the end."""
        while not (self.text and self.text[0] not in "!#%"):
            line = next(self.lines, None)
            if line is None:
                return False
            self.line, self.text = self.line + 1, line.strip()
        return True

    def words(self, count: int) -> list[str]:
        """Return the leading words of the next line; further words are a comment."""
        if not self.more():
            raise FormatError(f"{self.path} is truncated after line {self.line}")
        words, self.text = self.text.split(maxsplit=count + 1), ""
        if len(words) < count or (len(words) > count and is_number(words[count])):
            raise FormatError(f"{self.where}: expected {count} values")
        return words[:count]

    def count(self, most: int | None = None) -> int:
        return whole(self.words(1)[0], self.where, 0, most)

    def value(self, parse: _Parse = number) -> float:
        return parse(self.words(1)[0], self.where)

    def entries(self, *sizes: int, parse: _Parse = number) -> list[tuple[Any, ...]]:
        """Read a count and as many lines of 1-based indices, one for each size, and a value."""
        found: dict[tuple[int, ...], float] = {}
        for _ in range(self.count()):  # ends with the file if the count is too large
            *indices, value = self.words(len(sizes) + 1)
            at = tuple(
                whole(index, self.where, 1, size) - 1
                for index, size in zip(indices, sizes, strict=True)
            )
            if at in found:
                raise FormatError(f"{self.where}: duplicate entry")
            found[at] = parse(value, self.where)
        return [(*at, value) for at, value in found.items()]

    def vector(self, size: int, parse: _Parse = number) -> np.ndarray:
        default, entries = self.value(parse), self.entries(size, parse=parse)
        vector = np.full(size, default)
        for i, value in entries:
            vector[i] = value
        return vector

    def problem(self, k: Any, groups: Any, max_n: int | None) -> CardinalityQUBO:
        """Read the sections in their order."""
        self.words(1)  # the name
        kind = self.words(1)[0].upper()
        if len(kind) != 3 or kind[0] not in "LDCQ" or kind[1] != "B" or kind[2] not in "NBL":
            raise FormatError(
                f"{self.path} has type {kind!r:.20}; supported are only binaries with linear "
                "constraints or none (QBL, QBN, …)"
            )
        sense = self.words(1)[0].lower()
        if sense not in ("minimize", "maximize"):
            raise FormatError(f"{self.where}: unknown sense {sense!r:.20}")
        n = self.count()
        m = self.count() if kind[2] == "L" else 0
        products = [] if kind[0] == "L" else self.entries(n, n)
        check_size(n, sum(h != j for h, j, _ in products), self.path, max_n)
        if m > n:
            raise FormatError(f"{self.path} has {m} constraints on {n} variables; groups overlap")
        if any(h < j for h, j, _ in products):
            raise FormatError(f"{self.path}: an entry lies above the diagonal of the Hessian")
        linear = self.vector(n)
        offset = self.value()
        rows = self.rows(n, m) if kind[2] == "L" else []
        self.rest(n, m if kind[2] == "L" else None)
        terms = Terms(
            np.array([h for h, _, _ in products], dtype=np.int64),
            np.array([j for _, j, _ in products], dtype=np.int64),
            np.array([v / 2 for *_, v in products], dtype=np.float64),
            linear,
            offset,
        )
        k, groups = choose_cardinality(rows, n, k, groups, self.path)
        maximize = sense == "maximize"
        return terms.problem(k, groups, source=self.path, max_n=max_n, maximize=maximize)

    def rows(self, n: int, m: int) -> list[Row]:
        """Read the linear constraints, which must be equalities."""
        variables: list[list[int]] = [[] for _ in range(m)]
        weights: list[list[float]] = [[] for _ in range(m)]
        for row, i, value in self.entries(m, n):
            variables[row].append(i)
            weights[row].append(value)
        # The library writes infinity as 1.79769313486232E+308, which is above the largest double.
        infinity = self.value(extended)
        left, right = self.vector(m, extended), self.vector(m, extended)
        left[left <= -infinity], right[right >= infinity] = -np.inf, np.inf
        if len(apart := np.flatnonzero(left != right)):
            row = int(apart[0])
            raise FormatError(
                f"{self.path}: constraint {row + 1} is an inequality ({left[row]} … {right[row]}); "
                f"a cardinality is an equality, and {BUDGET_REMEDY}"
            )
        return [Row(*row) for row in zip(variables, weights, left.tolist(), strict=True)]

    def rest(self, n: int, m: int | None) -> None:
        """Check the optional sections; ``m`` is None without constraints."""
        if not self.more():
            return
        if m is None:
            self.value(extended)  # infinity, which precedes them
            if not self.more():
                return
        for size in (n, m, n):  # starting point, and duals of constraints and of bounds
            if size is not None:
                self.vector(size, extended)
        for size in (n, m or 0):  # names
            if size == 0 and not self.more():
                return  # some files omit the empty list of names of constraints
            for _ in range(self.count(size)):
                whole(self.words(2)[0], self.where, 1, size)
        if self.more():
            raise FormatError(f"{self.where}: text after the end")
