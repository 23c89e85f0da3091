"""MPS text in its free form, with a quadratic objective.

Conventions: the objective is ``linear + ½ xᵀHx - (right-hand side of the objective row)``
with a symmetric ``H``. ``QUADOBJ`` (CPLEX, Gurobi, HiGHS) and ``QSECTION`` (QPS, Mosek) list
each pair once, so that an entry off the diagonal is the whole coefficient of its product;
``QMATRIX`` (CPLEX) lists both triangles. We write ``QUADOBJ``, with linear terms in
``COLUMNS``.

Variables are binary: ``BV`` bounds, or integers (``INTORG`` markers) within [0, 1], which is
also what an integer without bounds means. Equality rows are cardinalities; the first free
row is the objective and further ones are ignored. Names hold no blanks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from problems.errors import FormatError
from problems.files import write_text
from problems.formats.terms import Row, Terms, constraint, group_rows, natural_order
from problems.formats.text import number
from problems.qubo import CardinalityQUBO


def write(problem: CardinalityQUBO, path: str | Path) -> None:
    """Write the problem as free MPS with variables ``x0 …`` and a row ``k0 …`` a group."""
    terms, n = Terms.of(problem), problem.n
    groups = [int(problem.groups[members[0]]) for members in group_rows(problem)]
    pairs = zip(terms.rows.tolist(), terms.cols.tolist(), terms.values.tolist(), strict=True)
    lines = ["NAME icbs", "ROWS", " N obj", *(f" E k{g}" for g in groups), "COLUMNS"]
    lines.append(" M1 'MARKER' 'INTORG'")
    for i, (value, g) in enumerate(
        zip(terms.linear.tolist(), problem.groups.tolist(), strict=True)
    ):
        lines.append(f" x{i} obj {value!r} k{g} 1")
    lines += [" M2 'MARKER' 'INTEND'", "RHS"]
    lines += [f" RHS k{g} {int(problem.cardinalities[g])}" for g in groups]
    lines.append(f" RHS obj {-terms.offset!r}")
    lines += ["BOUNDS", *(f" BV BND x{i}" for i in range(n))]
    if len(terms.rows):
        lines += ["QUADOBJ", *(f" x{i} x{j} {value!r}" for i, j, value in pairs)]
    write_text(path, "\n".join([*lines, "ENDATA", ""]))


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Read an MPS file whose constraints are cardinalities over binaries.

    Parameters
    ----------
    k, groups
        The cardinality, for a file without constraints.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the text is damaged, cut off, or describes another kind of problem.
    FileNotFoundError
        If there is no such file.
    """
    reader = _Reader(path)
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if reader.take(line):
                    break
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no MPS text: {error}") from error
    return reader.problem(k, groups, max_n)


class _Reader:
    """An MPS text, taken line by line; a method for each section."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.line, self.section, self.ended = path, 0, "", False
        self.maximize, self.integer = False, False
        self.objective: str | None = None
        self.kinds: dict[str, str] = {}
        self.rows: dict[str, dict[int, float]] = {}
        self.sides: dict[str, float] = {}
        self.index: dict[str, int] = {}
        self.integers: set[int] = set()
        self.bounds: dict[int, tuple[float, float]] = {}
        self.hessian: dict[tuple[int, int], float] = {}
        self.quadratic = ""

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.line}"

    def take(self, line: str) -> bool:
        """Take one line; true after the last one."""
        self.line += 1
        words = line.split()
        if not words or line.startswith(("*", "#")):
            return False
        if not line[0].isspace():
            self.section = words[0].upper()
            if self.section in ("QUADOBJ", "QSECTION", "QMATRIX"):
                if self.quadratic:
                    raise FormatError(f"{self.where}: a second quadratic section")
                self.quadratic = self.section
            elif self.section == "OBJSENSE" and len(words) > 1:
                self._objsense(words[1:])
            elif self.section not in self._SECTIONS and self.section not in ("NAME", "ENDATA"):
                raise FormatError(f"{self.where}: section {self.section!r:.30} is not read")
            self.ended = self.section == "ENDATA"
            return self.ended
        if self.section not in self._SECTIONS:
            raise FormatError(f"{self.where}: a line outside of all sections")
        self._SECTIONS[self.section](self, words)
        return False

    def _objsense(self, words: list[str]) -> None:
        senses = {"MIN": False, "MINIMIZE": False, "MAX": True, "MAXIMIZE": True}
        if words[0].upper() not in senses:
            raise FormatError(f"{self.where}: the sense is {words[0]!r:.30}")
        self.maximize = senses[words[0].upper()]

    def _row(self, words: list[str]) -> None:
        kind, name = self._split(words, 2)
        if kind.upper() not in ("N", "E", "L", "G") or name in self.kinds:
            raise FormatError(f"{self.where}: row {name!r:.30} of kind {kind!r:.10} comes amiss")
        self.kinds[name] = kind.upper()
        self.rows[name] = {}
        if kind.upper() == "N" and self.objective is None:
            self.objective = name
        if kind.upper() in ("L", "G"):
            raise FormatError(
                f"{self.where}: row {name!r:.30} is an inequality; a cardinality is an E row"
            )

    def _column(self, words: list[str]) -> None:
        if len(words) == 3 and words[1].strip("'").upper() == "MARKER":
            self.integer = words[2].strip("'").upper() == "INTORG"
            return
        name, *pairs = self._split(words, 3, 5)
        i = self.index.setdefault(name, len(self.index))
        if self.integer:
            self.integers.add(i)
        for row, value in zip(pairs[::2], pairs[1::2], strict=True):
            if i in self._known_row(row):
                raise FormatError(f"{self.where}: {name!r:.30} is in row {row!r:.30} twice")
            self.rows[row][i] = number(value, self.where)

    def _rhs(self, words: list[str]) -> None:
        pairs = self._split(words, 2, 3, 4, 5)[len(words) % 2 :]  # the set's name may be left out
        for row, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._known_row(row)
            if row in self.sides:
                raise FormatError(f"{self.where}: row {row!r:.30} has two right-hand sides")
            self.sides[row] = number(value, self.where)

    def _bound(self, words: list[str]) -> None:
        kind = words[0].upper()
        if kind == "BV":
            i = self._known_column(self._split(words, 2, 3)[-1])
            self.integers.add(i)
            self.bounds[i] = (0.0, 1.0)
            return
        if kind not in ("UP", "UI", "LO", "LI"):
            raise FormatError(f"{self.where}: a bound {kind!r:.10}; all variables must be binary")
        name, value = self._split(words, 3, 4)[-2:]
        i, edge = self._known_column(name), number(value, self.where)
        low, high = self.bounds.get(i, (0.0, 1.0))
        self.bounds[i] = (low, edge) if kind[0] == "U" else (edge, high)
        if kind[1] == "I":
            self.integers.add(i)

    def _product(self, words: list[str]) -> None:
        first, second, value = self._split(words, 3)
        pair = self._known_column(first), self._known_column(second)
        if self.quadratic != "QMATRIX":
            pair = min(pair), max(pair)
        if pair in self.hessian:
            raise FormatError(
                f"{self.where}: a product comes twice; {self.quadratic} lists "
                f"{'each entry' if self.quadratic == 'QMATRIX' else 'each pair'} once"
            )
        self.hessian[pair] = number(value, self.where)

    def _nothing(self, words: list[str]) -> None:
        raise FormatError(f"{self.where}: {self.section} has entries; only cardinalities are read")

    _SECTIONS: ClassVar[dict[str, Callable[[_Reader, list[str]], None]]] = {
        "OBJSENSE": _objsense,
        "ROWS": _row,
        "COLUMNS": _column,
        "RHS": _rhs,
        "RANGES": _nothing,
        "BOUNDS": _bound,
        "QUADOBJ": _product,
        "QSECTION": _product,
        "QMATRIX": _product,
    }

    def _split(self, words: list[str], *lengths: int) -> list[str]:
        if len(words) not in lengths:
            raise FormatError(f"{self.where}: {len(words)} words in section {self.section}")
        return words

    def _known_row(self, name: str) -> dict[int, float]:
        if name not in self.rows:
            raise FormatError(f"{self.where}: no row {name!r:.30}")
        return self.rows[name]

    def _known_column(self, name: str) -> int:
        if name not in self.index:
            raise FormatError(f"{self.where}: no variable {name!r:.30}")
        return self.index[name]

    def problem(self, k: Any, groups: Any, max_n: int | None) -> CardinalityQUBO:
        """Check what was read, and build the problem in the variables' natural order."""
        if not self.ended:
            raise FormatError(f"{self.path} is cut off: no ENDATA")
        if self.objective is None:
            raise FormatError(f"{self.path} has no objective (N) row")
        names, n = list(self.index), len(self.index)
        for i, name in enumerate(names):
            bounds = self.bounds.get(i, (0.0, 1.0))
            if i not in self.integers or bounds != (0.0, 1.0):
                kind = "an integer" if i in self.integers else "continuous"
                raise FormatError(
                    f"{self.path}: variable {name!r:.30} is {kind} in {list(bounds)}; "
                    "all must be binary"
                )
        place = np.empty(n, dtype=np.int64)
        place[natural_order(names)] = np.arange(n)
        linear = np.zeros(n)
        for i, value in self.rows[self.objective].items():
            linear[place[i]] = value
        pairs = np.array(list(self.hessian), dtype=np.int64).reshape(-1, 2)
        terms = Terms(
            place[pairs[:, 0]],
            place[pairs[:, 1]],
            self._whole(pairs),
            linear,
            -self.sides.get(self.objective, 0.0),
        )
        rows = [
            Row([int(place[i]) for i in row], list(row.values()), self.sides.get(name, 0.0))
            for name, row in self.rows.items()
            if self.kinds[name] == "E"
        ]
        k, groups = constraint(rows, n, k, groups, self.path)
        source = self.path
        return terms.problem(k, groups, source=source, max_n=max_n, maximize=self.maximize)

    def _whole(self, pairs: np.ndarray) -> np.ndarray:
        """Turn entries of the Hessian into whole coefficients of their products."""
        values = np.array(list(self.hessian.values()), dtype=np.float64)
        if self.quadratic != "QMATRIX":
            return np.where(pairs[:, 0] == pairs[:, 1], values / 2, values)
        for (i, j), value in self.hessian.items():
            if self.hessian.get((j, i)) != value:
                first, second = list(self.index)[i], list(self.index)[j]
                raise FormatError(
                    f"{self.path}: QMATRIX lists {first!r:.30} {second!r:.30} without the same "
                    "entry in the other triangle"
                )
        return values / 2
