"""The public set of pruning problems: over seventy, of four models, with best values and bounds.

    from problems import library

    library.names(model="garment", max_n=256)
    entry = library.load("garment-2-1024-early")
    entry.problem, entry.start, entry.best_energy, entry.bound

Names are model-layer-n-stage, followed by the curvature and constraint if they are not a Fisher
and one cardinality. Problems are rebuilt from integers (:mod:`problems.library.recipe`): they are
bit-identical, and their energies exact, on every machine. ``python -m problems.library`` writes
them to files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from problems.library.best import improve, verify
    from problems.library.catalogue import LibraryProblem, load, names, table

__all__ = ["LibraryProblem", "improve", "load", "names", "table", "verify"]

_HOME = {
    "LibraryProblem": "problems.library.catalogue",
    "improve": "problems.library.best",
    "load": "problems.library.catalogue",
    "names": "problems.library.catalogue",
    "table": "problems.library.catalogue",
    "verify": "problems.library.best",
}
__getattr__, __dir__ = attach(globals(), _HOME)
