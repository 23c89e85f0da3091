"""Tables of a run: CSV files that are appended to, with a digest of their content."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from icbs.errors import RunFolderError
from icbs.export.digests import new_hash
from problems.files import regular

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")


class TableFile(Generic[R]):
    """The rows of a table in a CSV file that is appended to, with a digest of its content.

    A checkpoint records :meth:`mark`. A killed process may leave more than the rows before the
    last checkpoint, whole or incomplete; :meth:`restore` reads the rows before the checkpoint,
    and the next :meth:`append` overwrites the rest.

    Parameters
    ----------
    path : Path
    kind : type
        Dataclass of a row: the columns. Fields are int, float, str, bool, or a number or None;
        those with a default may be missing in files of earlier releases, which keep their columns,
        so that their digests stay valid.
    what : str
        Name of the table in messages.
    remedy : str
        Advice in messages about a damaged file.
    """

    def __init__(self, path: Path, kind: type[R], what: str, remedy: str) -> None:
        self.path, self.kind, self.what, self.remedy = path, kind, what, remedy
        self._reset()

    def _reset(self) -> None:
        self.rows = self.size = 0
        self.names = [field.name for field in dataclasses.fields(self.kind)]
        self._hash = new_hash()

    def append(self, rows: Sequence[R], *, sync: bool = True) -> None:
        """Append the rows of the whole table that are not in the file yet.

        Parameters
        ----------
        rows : sequence
            The whole table.
        sync : bool, default True
            Wait until the file is on the disk, also the rows of earlier calls.

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
            text = self._csv(rows[self.rows :], header=not self.size)
            file.truncate(self.size)
            file.seek(self.size)
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        self._hash.update(text)
        self.rows, self.size = len(rows), self.size + len(text)

    def mark(self) -> dict[str, Any]:
        """Return the current number of rows, size in bytes and digest of the file."""
        return {"rows": self.rows, "size": self.size, "digest": self._hash.hexdigest()}

    def restore(self, mark: Mapping[str, Any]) -> list[R]:
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
            raise self._unreadable(f"{error}; {self.remedy}") from error
        self._reset()
        self._hash.update(text)
        if self._hash.hexdigest() != mark["digest"]:
            raise RunFolderError(
                f"{self.path} is damaged or of another run: its first {mark['rows']} rows don't "
                f"match the checkpoint; {self.remedy}"
            )
        rows, names = self.parse(text)
        self.rows, self.size, self.names = len(rows), len(text), names or self.names
        return rows

    def read(self) -> list[R]:
        """Read all complete rows.

        Raises
        ------
        RunFolderError
            If the file is missing or damaged.
        """
        try:
            text = regular(self.path).read_bytes()
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        # Rows end with \r\n, and messages within rows may have \n; edited files may have \n only.
        whole, end, _ = text.rpartition(b"\r\n" if b"\r\n" in text else b"\n")
        if not end:
            raise self._unreadable("it has no complete line")
        return self.parse(whole + end)[0]

    def _csv(self, rows: Sequence[R], *, header: bool) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if header:
            writer.writerow(self.names)
        for row in rows:
            # The repr of a float is the shortest text that is read back as the same bits.
            writer.writerow([getattr(row, name, "") for name in self.names])
        return text.getvalue().encode()

    def parse(self, text: bytes) -> tuple[list[R], list[str]]:
        """Read the rows and the names of their columns from a table's text.

        Raises
        ------
        RunFolderError
            If it is damaged.
        """
        try:
            reader = csv.DictReader(io.StringIO(text.decode(), newline=""))
            return [self._row(record) for record in reader], list(reader.fieldnames or [])
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise self._unreadable(error) from error

    def _row(self, record: dict[str, str]) -> R:
        kinds: dict[str, Callable[[str], Any]] = {
            "int": int,
            "float": float,
            "str": str,
            "bool": lambda text: text == "True",
            "float | None": lambda text: float(text) if text else None,
            "int | None": lambda text: int(text) if text else None,
        }
        present = [
            field
            for field in dataclasses.fields(self.kind)
            if field.name in record or field.default is dataclasses.MISSING
        ]
        return self.kind(**{f.name: kinds[str(f.type)](record[f.name]) for f in present})

    def _unreadable(self, why: Exception | str) -> RunFolderError:
        return RunFolderError(f"{self.path} is not a readable {self.what}: {why}")
