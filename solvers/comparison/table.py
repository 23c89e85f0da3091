"""Table of a comparison: columns, writing, reading and checks.

A *run* is a solver with its options on a problem with a seed. It has a row for each incumbent,
in the order in which they were found, and one for its end. The columns are described in
:data:`COLUMNS`; the gap of an energy E is (E - E*)/(E₀ - E*), with E₀ = ``start_energy`` and E*
the lowest of ``best_known`` and all energies of the problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from problems.files import atomic
from solvers.comparison.extra import importing
from solvers.errors import TableError

if TYPE_CHECKING:
    from pandas import DataFrame

#: Column → its type and meaning.
COLUMNS: dict[str, tuple[str, str]] = {
    "run": ("str", "key of the run, shared by its rows"),
    "problem": ("str", "name of the problem"),
    "family": ("str", "group of problems, if any"),
    "n": ("int", "variables"),
    "k": ("int", "ones, over all groups"),
    "groups": ("int", "number of cardinality groups"),
    "solver": ("str", "label of the solver"),
    "options": ("str", "JSON of the solver's options"),
    "seed": ("int", "seed"),
    "time_limit": ("float", "wall seconds allowed"),
    "row": ("str", "incumbent, or end (one per run, its last row)"),
    "seconds": ("float", "wall seconds from the start to the incumbent or to the end"),
    "energy": ("float", "recomputed in float64; of the end: the best; NaN if there is none"),
    "bound": ("float", "lower bound, NaN if there is none"),
    "feasible": ("bool", "whether there is a feasible state"),
    "feasible_share": ("float", "share of the solver's samples feasible before repair, or NaN"),
    "raw_energy": ("float", "best energy feasible before repair, or NaN"),
    "status": ("str", "solved, nothing, failed, timeout (killed) or unsupported; of ends"),
    "stop": ("str", "reason why the solver stopped"),
    "known": ("str", "optimal, bounded, or nothing"),
    "error": ("str", "error message"),
    "build_seconds": ("float", "part spent on building the backend's model"),
    "solve_seconds": ("float", "part spent on the search"),
    "decode_seconds": ("float", "part spent on decoding samples"),
    "penalty": ("float", "strength of the penalty, NaN without one"),
    "best_known": ("float", "lowest energy known beforehand, or NaN"),
    "best_proved": ("bool", "whether that is proved optimal"),
    "start_energy": ("float", "E₀: of the status quo, or the mean over feasible states"),
    "start_kind": ("str", "status quo, or random mean"),
    "versions": ("str", "JSON of distribution → version"),
    "machine": ("str", "processor and system; 'imported from FILE' for external runs"),
    "cores": ("int", "CPUs of the run"),
}
STATUSES = ("solved", "nothing", "failed", "timeout", "unsupported")
#: Columns that are equal in all rows of a run.
_CONSTANT = (
    *("problem", "family", "n", "k", "groups", "solver", "options", "seed", "time_limit"),
    *("best_known", "best_proved", "start_energy", "start_kind", "versions", "machine", "cores"),
)
_EMPTY: dict[str, Any] = {"str": "", "int": 0, "float": math.nan, "bool": False}
_DTYPES = {"str": "str", "int": "int64", "float": "float64", "bool": "bool"}


def frame_of(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """Make a table of rows, each a mapping of columns to values; None and missing are empty.

    Raises
    ------
    MissingBackendError
        If pandas is not installed.
    """
    with importing():
        import pandas as pd

    kept = list(rows)
    columns = {}
    for name, (kind, _) in COLUMNS.items():
        empty = _EMPTY[kind]
        values = [empty if (value := row.get(name)) is None else value for row in kept]
        columns[name] = pd.Series(values, dtype=_DTYPES[kind])
    return pd.DataFrame(columns)


def write(frame: DataFrame, folder: Path) -> list[Path]:
    """Write ``table.parquet`` and ``table.csv`` into a folder, each atomically."""
    with importing():
        import pyarrow  # noqa: F401 - used by pandas to write Parquet

    written = [folder / "table.parquet", folder / "table.csv"]
    with atomic(written[0]) as temporary:
        frame.to_parquet(temporary, index=False)
    with atomic(written[1]) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    return written


def read(path: str | Path) -> DataFrame:
    """Read a table written by :func:`write`, and check it.

    Parameters
    ----------
    path : str or Path
        A ``.parquet`` or ``.csv`` file, or a folder with ``table.parquet``.

    Raises
    ------
    TableError
        If the file can't be read or is not such a table.
    FileNotFoundError
        If there is no such file.
    """
    with importing():
        import pandas as pd

    file = Path(path)
    if file.is_dir():
        file = file / "table.parquet"
    if not file.exists():
        raise FileNotFoundError(f"there is no table {file}; 'icbs compare' writes one")
    try:
        if file.suffix == ".csv":
            text = {name: "str" for name, (kind, _) in COLUMNS.items() if kind == "str"}
            numbers = {n: [""] for n, (kind, _) in COLUMNS.items() if kind == "float"}
            frame = pd.read_csv(file, dtype=text, keep_default_na=False, na_values=numbers)
        else:
            frame = pd.read_parquet(file)
    except Exception as error:  # pandas and its parsers raise many kinds
        raise TableError(f"{file} can't be read as a table: {error!s:.300}") from error
    return checked(frame, str(file))


def checked(frame: DataFrame, name: str = "the table") -> DataFrame:
    """Check a table, and return it with its columns in order.

    Raises
    ------
    TableError
        If a column or a run is damaged; the message names it.
    """
    if missing := [column for column in COLUMNS if column not in frame]:
        raise TableError(f"{name} has no column {missing[0]!r}; it is not a table of a comparison")
    try:
        frame = frame[list(COLUMNS)].astype({c: _DTYPES[kind] for c, (kind, _) in COLUMNS.items()})
    except (ValueError, TypeError) as error:
        raise TableError(f"{name} has values of another type: {error!s:.300}") from error
    ends = frame["row"] == "end"
    _all(frame, ends | (frame["row"] == "incumbent"), name, "is neither an incumbent nor an end")
    _all(frame, ~ends | frame["status"].isin(STATUSES), name, "has an unknown status")
    _all(frame, np.isfinite(frame["seconds"]) & (frame["seconds"] >= 0), name, "has no valid time")
    _all(frame, ends | np.isfinite(frame["energy"]), name, "is an incumbent without an energy")
    counts = ends.groupby(frame["run"]).sum()
    if len(wrong := counts[counts != 1]):
        raise TableError(
            f"{name}: run {wrong.index[0]!r} has {int(wrong.iloc[0])} ends; it must have one"
        )
    same = frame.groupby("run")[list(_CONSTANT)].nunique(dropna=False)
    if len(mixed := same[(same > 1).any(axis=1)]):
        column = mixed.columns[(mixed.iloc[0] > 1).argmax()]
        raise TableError(f"{name}: the rows of run {mixed.index[0]!r} differ in {column!r}")
    next_ = frame.groupby("run", sort=False)
    _all(frame, ~(next_["seconds"].diff() < 0), name, "is earlier than the row before it")
    _all(frame, ends | ~(next_["energy"].diff() >= 0), name, "is not an improvement")
    return frame


def _all(frame: DataFrame, holds: Any, name: str, what: str) -> None:
    if not holds.all():
        row = int(np.argmin(holds.to_numpy()))
        raise TableError(f"{name}: row {row + 1} (run {frame['run'].iloc[row]!r}) {what}")
