"""The record of a run: one row for each block."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icbs.errors import RunFolderError
from icbs.export.digests import new_hash
from problems.files import regular


@dataclass(frozen=True)
class Row:
    """What happened to one block."""

    step: int
    """Pass, from 0."""
    samples: int
    """Samples of the pass."""
    layer: str
    n: int
    k: int
    """Weights in the block, and how many of them are pruned."""
    moved: int
    """Weights that the solver's answer moves, in either direction."""
    predicted: float
    """Change of the loss by the quadratic model, of the solver's answer."""
    actual: float
    """Change of the held-out loss; NaN where it was not measured."""
    accepted: bool
    energy: float
    """Energy of the solver's answer: the predicted change, the ridge, and with ``fisher+gram``
    the error of the layer's own output."""
    failure: str
    """Type and message of the error that kept the solver from answering (its type alone in
    histories of older runs); empty as a rule."""
    solver_seconds: float
    seconds: float
    """Wall seconds since the run began. The two times alone differ between equal runs."""
    proved: bool = False
    """Whether the solver proved its answer optimal for the block's quadratic model."""
    bound: float | None = None
    """Lower bound on the energy of every answer; None where the solver knows none, and in
    histories of earlier releases."""

    @property
    def gap(self) -> float | None:
        """Relative gap ``(energy - bound) / |energy|`` (absolute at energy 0), or None."""
        if self.bound is None:
            return None
        distance = max(0.0, self.energy - self.bound)
        return distance / abs(self.energy) if self.energy else distance


TIMES = ("solver_seconds", "seconds")


NAMES = [field.name for field in dataclasses.fields(Row)]


class HistoryFile:
    """The rows of a run as CSV, appended to, with a digest of what has been written.

    A file that an earlier release began keeps its own columns, so that its digests hold.

    A checkpoint records :meth:`mark`. A process that is killed may leave more than the last
    checkpoint counts on, whole rows or torn ones; :meth:`restore` reads what counts, and the
    next :meth:`append` writes over the rest.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_over()

    def _start_over(self) -> None:
        self.rows = self.size = 0
        self.names = NAMES
        self._hash = new_hash()

    def append(self, history: Sequence[Row]) -> None:
        """Append those rows of the whole history that the file does not have yet.

        Raises
        ------
        OSError
            If the file can't be written; the next call tries the same rows again.
        """
        # No link is followed, so that nothing outside of the run folder is written to.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self.path, flags, 0o666), "r+b") as file:
            if file.seek(0, os.SEEK_END) < self.size:  # somebody took it away
                self._start_over()
            text = _csv(history[self.rows :], self.names, header=not self.size)
            file.truncate(self.size)
            file.seek(self.size)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._hash.update(text)
        self.rows, self.size = len(history), self.size + len(text)

    def mark(self) -> dict[str, Any]:
        """Return number of rows, bytes and digest of the file as it stands."""
        return {"rows": self.rows, "size": self.size, "digest": self._hash.hexdigest()}

    def restore(self, mark: Mapping[str, Any]) -> list[Row]:
        """Read the rows that a checkpoint counts on, and go on behind them.

        Raises
        ------
        RunFolderError
            If they are not all there, unchanged.
        """
        try:
            with regular(self.path).open("rb") as file:
                # Never more than there is, whatever a mark claims.
                text = file.read(min(mark["size"], os.fstat(file.fileno()).st_size))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path} is not a readable history: {error}") from error
        self._start_over()
        self._hash.update(text)
        if self._hash.hexdigest() != mark["digest"]:
            raise RunFolderError(
                f"{self.path} is damaged, or of another run: its first {mark['rows']} rows are not "
                "those that the checkpoint counts on; restore the file, or begin the run anew"
            )
        rows, names = _parse(text, self.path)
        self.rows, self.size, self.names = len(rows), len(text), names or NAMES
        return rows


def read_history(path: Path) -> list[Row]:
    """Read all rows of a history, without a last one that is still being written.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    try:
        text = regular(path).read_bytes()
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is not a readable history: {error}") from error
    # Messages within a row may hold line feeds; a file that somebody edited may have no others.
    whole, end, _ = text.rpartition(b"\r\n" if b"\r\n" in text else b"\n")
    if not end:
        raise RunFolderError(f"{path} is not a readable history: it has no first line")
    return _parse(whole + end, path)[0]


def _csv(rows: Sequence[Row], names: Sequence[str], *, header: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        writer.writerow(names)
    for row in rows:
        # repr of a float is the shortest text that reads back to the same bits.
        writer.writerow([getattr(row, name, "") for name in names])
    return text.getvalue().encode()


def _parse(text: bytes, path: Path) -> tuple[list[Row], list[str]]:
    """Read rows and the names of their columns."""
    try:
        reader = csv.DictReader(io.StringIO(text.decode(), newline=""))
        return [_row(record) for record in reader], list(reader.fieldnames or [])
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunFolderError(f"{path} is not a readable history: {error}") from error


_KINDS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: text == "True",
    "float | None": lambda text: float(text) if text else None,
}


def _row(record: dict[str, str]) -> Row:
    """Read a row; columns that an earlier release did not write take their defaults."""
    fields = [
        field
        for field in dataclasses.fields(Row)
        if field.name in record or field.default is dataclasses.MISSING
    ]
    return Row(**{field.name: _KINDS[str(field.type)](record[field.name]) for field in fields})
