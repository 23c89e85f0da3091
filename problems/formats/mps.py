"""MPS text in its free form, with a quadratic objective.

Conventions: the objective is ``linear + ½ xᵀHx - (right-hand side of the objective row)`` with a
symmetric ``H``. ``QUADOBJ`` (CPLEX, Gurobi, HiGHS) and ``QSECTION`` (QPS, Mosek) list each pair
once, so that an entry off the diagonal is the whole coefficient of its product; ``QMATRIX``
(CPLEX) lists both triangles. Files are written with ``QUADOBJ``, and linear terms in ``COLUMNS``.

Variables are binary: ``BV`` bounds, or integers (``INTORG`` markers) with the bounds 0 and 1,
which is also what an integer without bounds means. A bound that fixes or widens a variable is
refused. Equality rows are cardinalities; a budget is a G row next to rows of counts
(:mod:`problems.formats.rows`). The first free row is the objective and the only row that may be
quadratic; further free rows are ignored. Names contain no blanks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from problems.budget import BudgetQUBO
from problems.errors import FormatError
from problems.files import regular, write_text
from problems.formats.named_terms import NamedTerms
from problems.formats.rows import REMEDY, constraint_rows, find_budget
from problems.formats.terms import Row, Terms
from problems.formats.text import is_number, number
from problems.labels import text_names
from problems.qubo import CardinalityQUBO

#: Words parsed per line, one more than any valid line has.
_WORDS = 6
_FIXED = (
    "it must be 0 and 1; substitute the value of a fixed variable in the objective and the rows"
)


_SENSES = {"E": "=", "G": ">=", "L": "<="}


def write(problem: CardinalityQUBO | BudgetQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the problem as free MPS with variables ``x0 …`` and rows ``k0 …``, one per group.

    Parameters
    ----------
    free : bool, default False
        Omit the cardinality.
    """
    terms, x = Terms.of(problem), text_names(problem.labels, problem.n, _is_name)
    rows = constraint_rows(problem, free)
    entries: list[list[str]] = [[] for _ in range(problem.n)]
    for row in rows:
        for i, weight in zip(row.variables, row.coefficients, strict=True):
            entries[i].append(f" {row.name} {int(weight) if weight == 1 else repr(weight)}")
    pairs = zip(terms.rows.tolist(), terms.cols.tolist(), terms.values.tolist(), strict=True)
    kinds = {sense: kind for kind, sense in _SENSES.items()}
    lines = ["NAME icbs", "ROWS", " N obj", *(f" {kinds[row.sense]} {row.name}" for row in rows)]
    lines += ["COLUMNS", " M1 'MARKER' 'INTORG'"]
    for name, value, inside in zip(x, terms.linear.tolist(), entries, strict=True):
        # A line holds up to two entries.
        lines.append(f" {name} obj {value!r}" + "".join(inside[:1]))
        lines += [f" {name}{entry}" for entry in inside[1:]]
    lines += [" M2 'MARKER' 'INTEND'", "RHS"]
    lines += [f" RHS {row.name} {row.value!r}" for row in rows]
    lines.append(f" RHS obj {-terms.offset!r}")
    lines += ["BOUNDS", *(f" BV BND {name}" for name in x)]
    if len(terms.rows):
        lines += ["QUADOBJ", *(f" {x[i]} {x[j]} {value!r}" for i, j, value in pairs)]
    write_text(path, "\n".join([*lines, "ENDATA", ""]))


def _is_name(word: str) -> bool:
    """Whether a word is a valid name in a free MPS text."""
    plain = word.isprintable() and word.split() == [word] and len(word) <= 255
    return plain and word[0] not in "*#$'" and not is_number(word)


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO | BudgetQUBO:
    """Read an MPS file whose constraints are cardinalities, or a budget, over binaries.

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
    reader = _Reader(path)
    try:
        with open(regular(path), encoding="utf-8") as file:
            for line in file:
                if reader.parse(line):
                    break
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not an MPS text: {error}") from error
    return reader.problem(k, groups, max_n)


class _Reader:
    """Parser of an MPS text, line by line, with a method for each section."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.line, self.section = path, 0, ""
        self.seen: set[str] = set()
        self.sense = ""
        self.found = NamedTerms()
        self.integer, self.column, self.quadratic = False, "", ""
        self.objective: str | None = None
        self.rows: dict[str, dict[int, float]] = {}
        self.senses: dict[str, str] = {}
        self.unequal: tuple[str, int] | None = None
        self.free: set[str] = set()
        self.sides: dict[str, float] = {}
        self.sets: dict[str, str] = {}
        self.integers: set[int] = set()
        self.bounded: dict[int, set[str]] = {}
        self.hessian: dict[tuple[int, int], float] = {}

    def parse(self, line: str) -> bool:
        """Parse one line; return True after the last one."""
        self.line += 1
        words = line.split(maxsplit=_WORDS)[:_WORDS]
        if not words or line.startswith(("*", "#")):
            return False
        if line[0].isspace():
            if self.section not in self._SECTIONS:
                self._refuse("a line outside any section")
            self._SECTIONS[self.section](self, words)
            return False
        self.section = words[0].upper()
        if self.section in self.seen:
            self._refuse(f"duplicate section {self.section:.30}")
        if self.section in ("QUADOBJ", "QSECTION", "QMATRIX"):
            self._quadratic(words)
        elif self.section == "OBJSENSE" and len(words) > 1:
            self._objsense(words[1:])
        elif self.section not in (*self._SECTIONS, "ENDATA", "" if self.seen else "NAME"):
            self._refuse(f"section {self.section!r:.30} is not supported, or out of order")
        elif len(words) > 1 and self.section != "NAME":
            self._refuse(f"unexpected text after the section name {self.section}")
        self.seen.add(self.section)
        return self.section == "ENDATA"

    def _objsense(self, words: list[str]) -> None:
        sense = " ".join(words).upper()
        if sense not in ("MIN", "MINIMIZE", "MAX", "MAXIMIZE") or self.sense:
            self._refuse(f"invalid or duplicate sense {sense!r:.30}")
        self.sense = sense
        self.found.maximize = sense.startswith("MAX")

    def _row(self, words: list[str]) -> None:
        kind, name = self._split(words, 2)
        kind = kind.upper()
        if kind not in ("N", *_SENSES) or name in self.rows:
            self._refuse(
                f"unexpected row {name!r:.30} of kind {kind!r:.10} (unknown kind or duplicate name)"
            )
        self.rows[name] = {}
        self.senses[name] = _SENSES.get(kind, "")
        if kind in ("L", "G") and self.unequal is None:
            self.unequal = name, self.line
        if kind == "N":
            self.free.add(name)
            self.objective = self.objective or name

    def _column(self, words: list[str]) -> None:
        if len(words) == 3 and words[1].upper() == "'MARKER'":
            if words[2].upper() not in ("'INTORG'", "'INTEND'"):
                self._refuse(f"unknown marker {words[2]!r:.30}")
            self.integer = words[2].upper() == "'INTORG'"
            return
        name, *pairs = self._split(words, 3, 5)
        if name in self.found.index and name != self.column:
            self._refuse(f"the entries of {name!r:.30} are not contiguous")
        self.column, i = name, self.found.variable(name)
        if self.integer:
            self.integers.add(i)
        for row, value in zip(pairs[::2], pairs[1::2], strict=True):
            if i in self._known_row(row):
                self._refuse(f"{name!r:.30} is listed twice in row {row!r:.30}")
            self.rows[row][i] = number(value, self.where)

    def _rhs(self, words: list[str]) -> None:
        pairs = self._split(words, 2, 3, 4, 5)
        self._one_set(pairs.pop(0) if len(pairs) % 2 else "")
        for row, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._known_row(row)
            if row in self.sides:
                self._refuse(f"row {row!r:.30} has two right-hand sides")
            self.sides[row] = number(value, self.where)

    def _bound(self, words: list[str]) -> None:
        kind = words[0].upper()
        if kind == "BV":
            self._split(words, 2, 3, 4)
            self._one_set(words[1] if len(words) > 2 else "")
            i = self._known_column(words[min(len(words) - 1, 2)])
            self.integers.add(i)
            self.bounded.setdefault(i, set()).add("U")
            return
        if kind not in ("UP", "UI", "LO", "LI"):
            self._refuse(f"a bound {kind!r:.10} is not that of a binary; {_FIXED}")
        *named, name, value = self._split(words, 3, 4)[1:]
        self._one_set(named[0] if named else "")
        i = self._known_column(name)
        if number(value, self.where) != (kind[0] == "U"):
            self._refuse(
                f"the bound {kind} {value:.30} on {name!r:.30} is not that of a binary; {_FIXED}"
            )
        self.bounded.setdefault(i, set()).add(kind[0])
        if kind[1] == "I":
            self.integers.add(i)

    def _quadratic(self, words: list[str]) -> None:
        if self.quadratic:
            self._refuse("duplicate quadratic section")
        if len(words) > 1 and words[1:] != [self.objective]:
            self._refuse(
                f"{self.section} belongs to {' '.join(words[1:])!r:.30}; only the objective "
                f"{self.objective!r:.30} may be quadratic"
            )
        self.quadratic = self.section

    def _product(self, words: list[str]) -> None:
        first, second, value = self._split(words, 3)
        pair = self._known_column(first), self._known_column(second)
        if self.quadratic != "QMATRIX":
            pair = min(pair), max(pair)
        if pair in self.hessian:
            self._refuse(
                f"a product is listed twice; {self.quadratic} lists "
                f"{'each entry' if self.quadratic == 'QMATRIX' else 'each pair'} once"
            )
        self.hessian[pair] = number(value, self.where)

    def _empty_section(self, words: list[str]) -> None:
        self._refuse(f"{self.section} has entries; only equality rows are supported")

    _SECTIONS: ClassVar[dict[str, Callable[[_Reader, list[str]], None]]] = {
        "OBJSENSE": _objsense,
        "ROWS": _row,
        "COLUMNS": _column,
        "RHS": _rhs,
        "RANGES": _empty_section,
        "BOUNDS": _bound,
        "QUADOBJ": _product,
        "QSECTION": _product,
        "QMATRIX": _product,
    }

    def problem(self, k: Any, groups: Any, max_n: int | None) -> CardinalityQUBO | BudgetQUBO:
        """Check the model, and build the problem with its variables in natural order."""
        if self.section != "ENDATA":
            raise FormatError(f"{self.path} is truncated: no ENDATA")
        if self.objective is None:
            raise FormatError(f"{self.path} has no objective (N) row")
        found = self.found
        for name, i in found.index.items():
            if i not in self.integers or self.bounded.get(i) == {"L"}:
                kind = "an integer without the bound 1" if i in self.integers else "continuous"
                raise FormatError(
                    f"{self.path}: variable {name!r:.30} is {kind}; all must be binary"
                )
        found.linear = self.rows[self.objective]
        found.offset = -self.sides.get(self.objective, 0.0)
        for (i, j), value in self.hessian.items():
            if self.quadratic == "QMATRIX" and self.hessian.get((j, i)) != value:
                first, second = list(found.index)[i], list(found.index)[j]
                raise FormatError(
                    f"{self.path}: QMATRIX lists {first!r:.30} {second!r:.30} without the same "
                    "entry in the other triangle"
                )
            found.first.append(i)
            found.second.append(j)
            halved = i == j or self.quadratic == "QMATRIX"
            found.products.append(value / 2 if halved else value)
        found.rows = [
            Row(list(row), list(row.values()), self.sides.get(name, 0.0), self.senses[name], name)
            for name, row in self.rows.items()
            if name not in self.free
        ]
        if self.unequal and find_budget(found.rows) is None:
            name, self.line = self.unequal
            self._refuse(
                f"row {name!r:.30} is an inequality; a cardinality is an E row, and {REMEDY}"
            )
        return found.problem(k, groups, self.path, max_n)

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.line}"

    def _refuse(self, why: str) -> NoReturn:
        raise FormatError(f"{self.where}: {why}")

    def _split(self, words: list[str], *lengths: int) -> list[str]:
        if len(words) not in lengths:
            self._refuse(
                f"{len(words)} words in section {self.section}; names must not contain blanks"
            )
        return list(words)

    def _one_set(self, name: str) -> None:
        """Refuse a second set of right-hand sides or bounds, which solvers ignore."""
        if self.sets.setdefault(self.section, name) != name:
            self._refuse(f"{self.section} has a second set, {name!r:.30}; only one is supported")

    def _known_row(self, name: str) -> dict[int, float]:
        if name not in self.rows:
            self._refuse(f"unknown row {name!r:.30}")
        return self.rows[name]

    def _known_column(self, name: str) -> int:
        if name not in self.found.index:
            self._refuse(f"unknown variable {name!r:.30}")
        return self.found.index[name]
