"""Results of a benchmark's cells: one committed file, and a folder for those of this machine.

Tables are made from the committed records and the new ones together, so that a benchmark can be
continued on another machine, seed by seed and method by method.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from problems.files import write_text

Record = dict[str, Any]


class Records:
    """Results by the names of their cells; a new result replaces a committed one.

    Parameters
    ----------
    file
        JSON file that is committed.
    folder
        Folder of the new results, a file for each, so that several processes can add to it.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.known: dict[str, Record] = json.loads(file.read_text()) if file.exists() else {}

    def find(self, name: str) -> Record | None:
        """Return the result of a cell; None if there is none."""
        if self.is_new(name):
            return dict(json.loads((self.folder / f"{name}.json").read_text()))
        return self.known.get(name)

    def is_new(self, name: str) -> bool:
        """Whether the folder has a result of the cell."""
        return (self.folder / f"{name}.json").exists()

    def add(self, name: str, found: Record) -> None:
        """Write the result of a cell to the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{name}.json", json.dumps(found, indent=1))

    def save(self) -> None:
        """Write the committed file with the new results, each on a line of its own."""
        new = {path.stem: json.loads(path.read_text()) for path in self.folder.glob("*.json")}
        every = sorted((self.known | new).items())
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(_short(row))}" for name, row in every)
        write_text(self.file, f"{{\n{lines}\n}}\n")


def _short(found: Any) -> Any:
    """Return a result with six digits."""
    if isinstance(found, dict):
        return {key: _short(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_short(value) for value in found]
    return float(f"{found:.6g}") if isinstance(found, float) else found
