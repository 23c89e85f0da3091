"""CPLEX LP text.

Conventions: quadratic terms of the objective stand in ``[ … ] / 2``, so that ``4 x0 * x1`` inside
the bracket means ``2 x0 x1``; a constant may follow; ``Maximize`` turns the sign; each group is
an equality row ``k0: x0 + x1 + … = k``; a budget is a row ``budget: 3 x0 + … >= 9`` next to
rows of counts (:mod:`problems.formats.rows`); all variables are listed under ``Binary``. Variables
are ``x0 … x(n-1)``, or have the problem's labels if all of them are valid names. Other names in a
file are read as labels, in the order of their first use, unless all have a common stem and a
number. (Gurobi reads a constant as the name of a variable; use an MPS file, or no offset.)

=================== ============================================================
section             content that is read
=================== ============================================================
``Minimize``        one objective; also ``Maximize``, ``min``, ``maximum``, …
``Subject To``      linear equalities; also ``such that``, ``st``, ``s.t.``
``Bounds``          those of a binary variable: 0 and 1
``Binary``          names; also ``Binaries``, ``bin``
``General``         names of integers with the bound 1; also ``Integer``, …
``End``             the end of the text
=================== ============================================================

Anything else is refused with a message: other sections (SOS, semi-continuous variables, lazy and
general constraints, …), a bound that fixes or widens a variable, terms without an operator
between them, and text that solvers read differently, such as ``[ … ]`` without ``/ 2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from problems.budget import BudgetQUBO
from problems.errors import FormatError
from problems.files import regular, write_text
from problems.formats.lp_reader import Reader, is_name
from problems.formats.rows import constraint_rows
from problems.formats.terms import Terms
from problems.labels import text_names
from problems.qubo import CardinalityQUBO

#: Terms per line: CPLEX reads up to 560 characters, older readers 255.
_WIDTH = 4


def write(problem: CardinalityQUBO | BudgetQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the problem as LP text.

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
    terms, x = Terms.of(problem), text_names(problem.labels, problem.n, is_name)
    # All variables are listed in the objective, also with coefficient 0, to fix their order.
    every = free or problem.labels is not None
    used = list(range(problem.n)) if every else np.flatnonzero(terms.linear).tolist()
    objective = [f"{_signed(v)} {x[i]}" for i, v in zip(used, terms.linear[used], strict=True)]
    triples = zip(terms.rows.tolist(), terms.cols.tolist(), terms.doubled().tolist(), strict=True)
    if products := [f"{_signed(v)} {x[i]} * {x[j]}" for i, j, v in triples]:
        objective += ["+ [", *products, "] / 2"]
    if terms.offset:
        objective.append(_signed(terms.offset))
    lines = ["Minimize", " obj:", *_folded(objective), *([] if free else ["Subject To"])]
    for row in constraint_rows(problem, free):
        weighted = zip(row.coefficients, row.variables, strict=True)
        body = (f"+ {x[i]}" if c == 1 else f"{_signed(c)} {x[i]}" for c, i in weighted)
        lines += [f" {row.name}:", *_folded(body), f" {row.sense} {row.value!r}"]
    lines += ["Binary", *_folded(x), "End", ""]
    write_text(path, "\n".join(lines))


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO | BudgetQUBO:
    """Read an LP file whose constraints are cardinalities, or a budget, over binaries.

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
    content = regular(path).read_bytes()
    if bad := re.search(rb"[^\t\n\r\x20-\x7e]", content):
        raise FormatError(f"{path} is not an LP text: byte {bad[0]!r} at {bad.start()}")
    text = content.decode("ascii").replace("\r\n", "\n").replace("\r", "\n")
    model = Reader(re.sub(r"\\[^\n]*", "", text), path).model()
    return model.problem(k, groups, path, max_n)


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'} {abs(float(value))!r}"


def _folded(words: Iterable[str]) -> list[str]:
    """Wrap words to lines."""
    items = list(words)
    return ["  " + " ".join(items[at : at + _WIDTH]) for at in range(0, len(items), _WIDTH)]
