"""Reading of the new rows of a table that another process appends to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from icbs.run.table_file import TableFile
from problems.files import regular

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")

_END = b"\r\n"
_REMEMBERED = 512
"""Number of bytes before the offset that must not have changed."""


class Tail(Generic[R]):
    """New rows of a table, from the offset of the last call.

    A run that is resumed overwrites rows after its checkpoint. This is noticed by the bytes
    before the offset, and the table is then read from its beginning.

    Parameters
    ----------
    table : TableFile
    """

    def __init__(self, table: TableFile[R]) -> None:
        self._table = table
        self._reset()

    def _reset(self) -> None:
        self._offset, self._header, self._before = 0, b"", b""

    def read(self) -> tuple[list[R], bool]:
        """Return the new complete rows, and whether they replace all earlier ones.

        Raises
        ------
        OSError
            If the file can't be read.
        RunFolderError
            If a row is damaged.
        """
        with regular(self._table.path).open("rb") as file:
            start = self._offset - len(self._before)
            file.seek(start)
            content = file.read()
            replaced = not content.startswith(self._before)
            if replaced:
                self._reset()
                file.seek(0)
                content = file.read()
        first = self._offset == 0
        text = content[len(self._before) :]
        whole, end, _ = text.rpartition(_END)
        if not end:
            return [], replaced
        whole += end
        if first:
            self._header = whole[: whole.index(_END) + len(_END)]
        rows, _ = self._table.parse(whole if first else self._header + whole)
        self._offset += len(whole)
        self._before = (self._before + whole)[-_REMEMBERED:]
        return rows, replaced
