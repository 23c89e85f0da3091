"""The history of a run: one row per block."""

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
class BlockRecord:
    """The row of one block."""

    step: int
    """Pass, from 0."""
    samples: int
    """Number of samples of the pass."""
    layer: str
    n: int
    k: int
    """Number of weights in the block, and number of those that are pruned."""
    moved: int
    """Number of weights that the solution prunes or restores."""
    predicted: float
    """Change of the loss by the quadratic model, for the solution."""
    actual: float
    """Change of the held-out loss; NaN if not measured."""
    accepted: bool
    energy: float
    """Energy of the solution: the predicted change, the ridge term, and with ``fisher+gram`` the
    error of the layer's output."""
    failure: str
    """Type and message of the solver's error (only the type in histories of older runs); empty
    without an error."""
    solver_seconds: float
    seconds: float
    """Wall seconds since the start. Only the two times differ between repetitions of a run."""
    proved: bool = False
    """Whether the solver proved that the solution is optimal for the block's quadratic model."""
    bound: float | None = None
    """Lower bound on the energies of all solutions; None if the solver has none, and in histories
    of earlier releases."""

    @property
    def gap(self) -> float | None:
        """Relative gap ``(energy - bound) / |energy|``, or None.

        The absolute one if no weight moved, since the energy is then 0 up to rounding.
        """
        if self.bound is None:
            return None
        distance = max(0.0, self.energy - self.bound)
        return distance / abs(self.energy) if self.moved and self.energy else distance


Row = BlockRecord  # name in version 0.1
TIMES = ("solver_seconds", "seconds")
NAMES = [field.name for field in dataclasses.fields(BlockRecord)]


class HistoryFile:
    """The rows of a run in a CSV file that is appended to, with a digest of its content.

    A file of an earlier release keeps its columns, so that its digests stay valid.

    A checkpoint records :meth:`mark`. A killed process may leave more than the rows before the
    last checkpoint, whole or incomplete; :meth:`restore` reads the rows before the checkpoint,
    and the next :meth:`append` overwrites the rest.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reset()

    def _reset(self) -> None:
        self.rows = self.size = 0
        self.names = NAMES
        self._hash = new_hash()

    def append(self, history: Sequence[BlockRecord]) -> None:
        """Append the rows of the whole history that are not in the file yet.

        Raises
        ------
        OSError
            If the file can't be written; the next call tries the same rows again.
        """
        # Links are not followed, so that no file outside of the run folder is changed.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self.path, flags, 0o666), "r+b") as file:
            if file.seek(0, os.SEEK_END) < self.size:  # removed or truncated by the user
                self._reset()
            text = _csv(history[self.rows :], self.names, header=not self.size)
            file.truncate(self.size)
            file.seek(self.size)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._hash.update(text)
        self.rows, self.size = len(history), self.size + len(text)

    def mark(self) -> dict[str, Any]:
        """Return the current number of rows, size in bytes and digest of the file."""
        return {"rows": self.rows, "size": self.size, "digest": self._hash.hexdigest()}

    def restore(self, mark: Mapping[str, Any]) -> list[BlockRecord]:
        """Read the rows before a checkpoint, and append after them from now on.

        Raises
        ------
        RunFolderError
            If rows are missing or changed.
        """
        try:
            with regular(self.path).open("rb") as file:
                # At most the size of the file, whatever the mark says.
                text = file.read(min(mark["size"], os.fstat(file.fileno()).st_size))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path} is not a readable history: {error}") from error
        self._reset()
        self._hash.update(text)
        if self._hash.hexdigest() != mark["digest"]:
            raise RunFolderError(
                f"{self.path} is damaged or of another run: its first {mark['rows']} rows don't "
                "match the checkpoint; restore the file, or start a new run"
            )
        rows, names = _parse(text, self.path)
        self.rows, self.size, self.names = len(rows), len(text), names or NAMES
        return rows


def read_history(path: Path) -> list[BlockRecord]:
    """Read all complete rows of a history.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    try:
        text = regular(path).read_bytes()
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is not a readable history: {error}") from error
    # Rows end with \r\n, and messages within rows may have \n; edited files may have \n only.
    whole, end, _ = text.rpartition(b"\r\n" if b"\r\n" in text else b"\n")
    if not end:
        raise RunFolderError(f"{path} is not a readable history: it has no complete line")
    return _parse(whole + end, path)[0]


def _csv(rows: Sequence[BlockRecord], names: Sequence[str], *, header: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        writer.writerow(names)
    for row in rows:
        # The repr of a float is the shortest text that is read back as the same bits.
        writer.writerow([getattr(row, name, "") for name in names])
    return text.getvalue().encode()


def _parse(text: bytes, path: Path) -> tuple[list[BlockRecord], list[str]]:
    """Read the rows and the names of their columns."""
    try:
        reader = csv.DictReader(io.StringIO(text.decode(), newline=""))
        return [_record(fields) for fields in reader], list(reader.fieldnames or [])
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunFolderError(f"{path} is not a readable history: {error}") from error


_READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: text == "True",
    "float | None": lambda text: float(text) if text else None,
}


def _record(fields: dict[str, str]) -> BlockRecord:
    """Read a row; columns that earlier releases did not write get their defaults."""
    present = [
        field
        for field in dataclasses.fields(BlockRecord)
        if field.name in fields or field.default is dataclasses.MISSING
    ]
    return BlockRecord(**{f.name: _READ[str(f.type)](fields[f.name]) for f in present})
