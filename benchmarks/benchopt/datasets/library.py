"""The public set of pruning problems."""

from __future__ import annotations

from typing import Any

from benchopt import BaseDataset

from problems import library


class Dataset(BaseDataset):
    """A problem of :mod:`problems.library`, with its status quo and the best energy known."""

    name = "library"
    parameters = {"problem": library.names(collection="small")}  # noqa: RUF012

    def get_data(self) -> dict[str, Any]:
        """Rebuild the problem."""
        entry = library.load(self.problem)
        return {
            "problem": entry.problem,
            "start": entry.start,
            "start_energy": entry.start_energy,
            "best_energy": entry.best_energy,
            "name": entry.name,
        }
