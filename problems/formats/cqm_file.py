"""dimod's file of a CQM, ``ConstrainedQuadraticModel.to_file``, version 2.

A header, then a zip archive: ``varinfo`` with type and bounds of each variable,
``variable_labels.json`` unless they are 0 … n - 1, an expression ``objective``, and a folder
``constraints/LABEL`` for each constraint with an expression ``lhs``, its ``rhs`` and its
``sense``; ``weight`` makes it soft, ``discrete`` changes nothing. An expression numbers its own
variables; a section maps them to the variables of the model.

The reader accepts the models that :func:`problems.formats.bqm.from_cqm` does. It does not use
dimod, whose own reader does not check indices.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from problems.archive import check_unpacked
from problems.budget import BudgetQUBO
from problems.errors import FormatError
from problems.files import regular, write_bytes
from problems.formats.binary import ByteReader, floats, integers, shape
from problems.formats.bqm import (
    SENSES,
    check_variable,
    to_cqm,
    valid_labels,
    variable_order,
)
from problems.formats.rows import not_a_count, problem_from_rows
from problems.formats.terms import Indices, Row, Terms, Vector
from problems.labels import from_json
from problems.qubo import CardinalityQUBO

_MAGIC, _EXPRESSION = b"DIMODCQM", b"DIMODEXPR"
_VARIABLE = np.dtype([("kind", "i1"), ("low", "<f8"), ("high", "<f8")])
_KINDS = ("BINARY", "SPIN", "INTEGER", "REAL")
_PARTS = ("lhs", "rhs", "sense", "discrete", "weight", "penalty")


class _Expression(NamedTuple):
    """A polynomial over some variables of the model."""

    variables: Indices
    linear: Vector
    rows: Indices
    cols: Indices
    values: Vector
    offset: float


def write(problem: CardinalityQUBO | BudgetQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the problem as a CQM that ``from_file`` reads.

    Parameters
    ----------
    free : bool, default False
        Omit the cardinality.
    """
    with to_cqm(problem, free=free).to_file(compress=True) as file:
        write_bytes(path, file.read())


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO | BudgetQUBO:
    """Read a CQM file whose constraints are cardinalities, or a budget, over binaries.

    Parameters
    ----------
    k, groups
        The cardinality, for a file without constraints.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the file is damaged, unpacks to far more than its size, or describes another kind
        of problem.
    FileNotFoundError
        If there is no such file.
    """
    content = regular(path).read_bytes()
    header, version = ByteReader(content, path).header(_MAGIC)
    if version != (2, 0):
        raise FormatError(
            f"{path} has version {version[0]}.{version[1]}; only 2.0 is supported. Load it with "
            "dimod's ConstrainedQuadraticModel.from_file and save it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_unpacked(archive, path, "dimod")
            return _Reader(archive, header, path).problem(k, groups, max_n)
    except FormatError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: a password, or an unsupported compression.
        raise FormatError(f"{path} is not a readable CQM file: {error!s:.200}") from error


class _Reader:
    """Parser of the members of the archive."""

    def __init__(self, archive: zipfile.ZipFile, header: dict[str, Any], path: str | Path) -> None:
        self.archive, self.header, self.path = archive, header, path
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.constraints: dict[str, set[str]] = {}
        for member in archive.infolist():
            name = member.filename
            folder, _, part = name.rpartition("/")
            if name in self.members:
                raise FormatError(f"{path} has the duplicate entry {name!r:.80}")
            if folder.startswith("constraints/") and part in _PARTS:
                self.constraints.setdefault(folder, set()).add(part)
            elif name not in ("varinfo", "objective", "variable_labels.json"):
                raise FormatError(f"{path} has the unknown entry {name!r:.80}")
            self.members[name] = member

    def problem(self, k: Any, groups: Any, max_n: int | None) -> CardinalityQUBO | BudgetQUBO:
        labels = self.variables()
        place = np.empty(len(labels), dtype=np.int64)
        number = {label: i for i, label in enumerate(labels)}
        ordered = variable_order(labels)
        place[[number[label] for label in ordered]] = np.arange(len(labels))
        objective = self.expression("objective", len(labels))
        linear = np.zeros(len(labels))
        linear[place[objective.variables]] = objective.linear
        terms = Terms(
            place[objective.variables[objective.rows]],
            place[objective.variables[objective.cols]],
            objective.values,
            linear,
            objective.offset,
        )
        if self.header.get("num_constraints") != len(self.constraints):
            raise FormatError(f"{self.path} has another number of constraints than its header")
        rows = [self.row(name, parts, place) for name, parts in self.constraints.items()]
        return problem_from_rows(
            terms, rows, k, groups, source=self.path, max_n=max_n, labels=valid_labels(ordered)
        )

    def variables(self) -> list[Any]:
        """Return the labels, after checking that each variable is binary."""
        n = self.header.get("num_variables")
        if not (isinstance(n, int) and 0 <= n < 1 << 48):
            raise FormatError(f"{self.path} claims {n!r:.40} variables")
        found = self.content("varinfo").section(b"VTYP").array(_VARIABLE, n)
        labels: list[Any] = list(range(n))
        if "variable_labels.json" in self.members:
            labels = from_json(self.archive.read("variable_labels.json"))
        try:
            distinct = len(set(labels)) == len(labels) == n
        except TypeError:  # an object is not a label
            distinct = False
        if not distinct:
            raise FormatError(f"{self.path} needs {n} distinct labels")
        for label, (kind, low, high) in zip(labels, found.tolist(), strict=True):
            name = _KINDS[kind] if 0 <= kind < len(_KINDS) else f"of kind {kind}"
            check_variable(label, name, low, high, self.path)
        return labels

    def row(self, name: str, parts: set[str], place: Indices) -> Row:
        """Read one constraint."""
        if not parts >= {"lhs", "rhs", "sense"}:
            raise FormatError(f"{self.path}: {name!r:.60} lacks its lhs, rhs or sense")
        left = self.expression(f"{name}/lhs", len(place))
        sense = self.archive.read(f"{name}/sense")
        known = SENSES.get(sense.decode("latin-1"))
        if known is None or len(left.rows) or "weight" in parts:
            raise not_a_count(self.path, name)
        right = float(self.content(f"{name}/rhs").array("<f8", 1)[0])
        variables = place[left.variables].tolist()
        label = name.removeprefix("constraints/").strip('"')
        return Row(variables, left.linear.tolist(), right - left.offset, known, label)

    def expression(self, name: str, n: int) -> _Expression:
        """Read an expression over some of n variables."""
        content = self.content(name)
        header, _ = content.header(_EXPRESSION)
        used, products = shape(header, content.source)
        bias, index = floats(header, content.source), integers(header, "itype", content.source)
        variables = content.section(b"INDX").array(index, used).astype(np.int64)
        offset = float(content.section(b"OFFS").array(bias, 1)[0])
        linear = content.section(b"LINB").array(bias, used).astype(np.float64)
        record = [("u", index), ("v", index), ("bias", bias)]
        pairs = content.section(b"QUAD", "<u8").array(record, products)
        u, v = pairs["u"].astype(np.int64), pairs["v"].astype(np.int64)
        outside = any(
            len(part) and (part.min() < 0 or part.max() >= most)
            for part, most in ((variables, n), (u, used), (v, used))
        )
        if outside or len(np.unique(variables)) != used:
            raise FormatError(f"{content.source} is damaged: it names an unknown variable")
        return _Expression(variables, linear, u, v, pairs["bias"].astype(np.float64), offset)

    def content(self, name: str) -> ByteReader:
        if name not in self.members:
            raise FormatError(f"{self.path} has no entry {name!r:.80}")
        return ByteReader(self.archive.read(name), f"{self.path}, entry {name!r:.80}")
