"""Rows of a run as a CSV file that is appended to, with a digest of what has been written."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
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
    """Rows of a dataclass of int, float, str and bool, one a line.

    A checkpoint records :meth:`mark`. A process that is killed may leave more than the last
    checkpoint counts on, whole rows or torn ones; :meth:`restore` reads what counts, and the
    next :meth:`append` writes over the rest.

    Parameters
    ----------
    path : Path
    kind : type
        The dataclass, whose fields are the columns.
    what : str
        The table's name in messages.
    remedy : str
        What to do where it is damaged.
    """

    def __init__(self, path: Path, kind: type[R], what: str, remedy: str) -> None:
        self.path, self.kind, self.what, self.remedy = path, kind, what, remedy
        self._start_over()

    def _start_over(self) -> None:
        self.rows = self.size = 0
        self._hash = new_hash()

    def append(self, rows: Sequence[R]) -> None:
        """Append those of all rows so far that the file does not have yet.

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
            text = self._csv(rows[self.rows :], header=not self.size)
            file.truncate(self.size)
            file.seek(self.size)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._hash.update(text)
        self.rows, self.size = len(rows), self.size + len(text)

    def mark(self) -> dict[str, Any]:
        """Return number of rows, bytes and digest of the file as it stands."""
        return {"rows": self.rows, "size": self.size, "digest": self._hash.hexdigest()}

    def restore(self, mark: Mapping[str, Any]) -> list[R]:
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
            raise self._unreadable(f"{error}; {self.remedy}") from error
        self._start_over()
        self._hash.update(text)
        if self._hash.hexdigest() != mark["digest"]:
            raise RunFolderError(
                f"{self.path} is damaged, or of another run: its first {mark['rows']} rows are not "
                f"those that the checkpoint counts on; {self.remedy}"
            )
        rows = self._parse(text)
        self.rows, self.size = len(rows), len(text)
        return rows

    def read(self) -> list[R]:
        """Read all rows, without a last one that is still being written.

        Raises
        ------
        RunFolderError
            If the file is missing or damaged.
        """
        try:
            text = regular(self.path).read_bytes()
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        # Messages within a row may hold line feeds; a file that somebody edited may have no
        # others.
        whole, end, _ = text.rpartition(b"\r\n" if b"\r\n" in text else b"\n")
        if not end:
            raise self._unreadable("it has no first line")
        return self._parse(whole + end)

    def _csv(self, rows: Sequence[R], *, header: bool) -> bytes:
        names = [field.name for field in dataclasses.fields(self.kind)]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if header:
            writer.writerow(names)
        for row in rows:
            # repr of a float is the shortest text that reads back to the same bits.
            writer.writerow([getattr(row, name) for name in names])
        return text.getvalue().encode()

    def _parse(self, text: bytes) -> list[R]:
        try:
            lines = io.StringIO(text.decode(), newline="")
            return [self._row(record) for record in csv.DictReader(lines)]
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise self._unreadable(error) from error

    def _row(self, record: dict[str, str]) -> R:
        kinds = {"int": int, "float": float, "str": str, "bool": lambda text: text == "True"}
        fields = dataclasses.fields(self.kind)
        return self.kind(**{f.name: kinds[str(f.type)](record[f.name]) for f in fields})  # type: ignore[operator]

    def _unreadable(self, why: Exception | str) -> RunFolderError:
        return RunFolderError(f"{self.path} is not a readable {self.what}: {why}")
