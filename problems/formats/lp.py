"""CPLEX LP text, read and written through dimod.

Conventions: quadratic terms of the objective stand in ``[ … ] / 2``, so that ``4 x0 * x1``
inside the bracket means ``2 x0 x1``; a constant may follow; ``Maximize`` turns the sign;
each group is an equality row ``k0: x0 + x1 + … = k``; all variables are listed under
``Binary``. Variables are ``x0 … x(n-1)``; a file with other names keeps the order in which
it first uses them, unless all share one stem and a number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from problems.errors import FormatError
from problems.files import write_text
from problems.formats.bqm import from_cqm, to_cqm
from problems.qubo import CardinalityQUBO


def write(problem: CardinalityQUBO, path: str | Path) -> None:
    """Write the problem as LP text."""
    import dimod

    cqm = to_cqm(problem, [f"x{i}" for i in range(problem.n)])
    write_text(path, dimod.lp.dumps(cqm) + "\n")


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Read an LP file whose constraints are cardinalities over binaries.

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
    import dimod

    content = Path(path).read_bytes()
    # The parser behind dimod never returns from some control characters, and takes a text
    # without its end for a smaller problem: both are caught before it sees the file.
    if bad := re.search(rb"[^\t\n\r\x20-\x7e]", content):
        raise FormatError(f"{path} is no LP text: byte {bad[0]!r} at {bad.start()}")
    if not re.search(rb"(?i)(^|\s)end\s*$", re.sub(rb"\\[^\n]*", b"", content)):
        raise FormatError(f"{path} is cut off: an LP text ends with 'End'")
    try:
        cqm = dimod.lp.load(str(path))
    except (ValueError, RuntimeError, KeyError, OverflowError) as error:
        raise FormatError(f"{path} is no LP text that dimod can read: {error!s:.200}") from error
    if not cqm.variables:
        raise FormatError(f"{path} holds no variables; is it an LP text?")
    return from_cqm(cqm, k, groups, source=path, max_n=max_n)
