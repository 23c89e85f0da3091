"""Problems, runs and improvements of a comparison, with their gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from solvers.comparison.extra import importing
from solvers.errors import TableError

with importing():
    import pandas as pd

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: Share of the time limit by which an answer may be late and still count. Solvers that report
#: only at the end return shortly after their limit.
GRACE = 0.1
#: Gap up to which a run counts as at the best known value.
AT_BEST = 1e-9
#: Differences below this share of the energies themselves are rounding.
ROUNDING = 1e-12

#: Columns of the table that the measures read.
TEXT = ("run", "problem", "family", "solver", "row", "status", "known", "error", "start_kind")
NUMBERS = (
    *("n", "k", "groups", "seed", "time_limit", "seconds", "energy", "bound", "feasible_share"),
    *("raw_energy", "penalty", "best_known", "start_energy"),
)
FLAGS = ("feasible", "best_proved")


@dataclass(frozen=True)
class Results:
    """Data of a comparison for the measures; see :func:`results`."""

    problems: DataFrame
    """One row per problem, by n:
    ``problem, family, n, k, groups, best, proved, bound, start, start_kind``, where ``best`` is
    E* and ``start`` is E₀."""
    runs: DataFrame
    """One row per finished run, in the order of problems, solvers and seeds: the table's end row
    with ``best``, ``start``, ``late`` (its last state came after the grace time), and
    ``energy``, ``gap`` of the best state in time (NaN without one)."""
    steps: DataFrame
    """One row per improvement in time: ``run`` (position in :attr:`runs`), ``seconds``,
    ``energy``, ``gap``. Both seconds and energies are strictly monotone in a run."""
    unfinished: int
    """Number of runs without an end row, which are left out."""

    @property
    def solvers(self) -> list[str]:
        """Labels of the solvers, in alphabetical order."""
        return sorted(self.runs["solver"].unique())


def gap(energy: Any, best: Any, start: Any) -> npt.NDArray[np.float64]:
    """Return g = (E − E*) / (E₀ − E*).

    Parameters
    ----------
    energy : array_like
        E; NaN, here or in E*, gives NaN.
    best : array_like
        E*, the best energy known.
    start : array_like
        E₀, the energy of the start. Where it is not above E*, the gap is 0 at E* and infinite
        above it.

    Returns
    -------
    ndarray of float64
        At least 0, and above 1 where E is worse than the start. Differences from E* within
        rounding (1e-12 of the energies) are 0.
    """
    E, E_best, E_start = (np.asarray(a, dtype=np.float64) for a in (energy, best, start))
    rounding = ROUNDING * np.maximum(np.abs(E_best), np.abs(E_start))
    above, scale = E - E_best, E_start - E_best
    usual = scale > rounding
    ratio = np.where(usual, above / np.where(usual, scale, 1.0), np.inf)
    return np.where(np.isnan(above), np.nan, np.where(above <= rounding, 0.0, ratio))


def results(table: DataFrame, grace: float = GRACE) -> Results:
    """Split a table into problems, runs and improvements, and compute the gaps.

    E* of a problem is the lower of its best known energy and the best state of a run. Runs that
    failed or were killed count with the states that they reported before, if their end has one;
    no improvement counts as lower than the energy of the end.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each improvement of a run, and one for its end.
    grace : float
        States found within ``(1 + grace) * time_limit`` count.

    Raises
    ------
    TableError
        If columns are missing, there is no finished run, a run ends twice, or rows of one
        problem contradict each other.
    """
    table = _checked(table)
    is_end = (table["row"] == "end").to_numpy()
    ends = table[is_end]
    if ends.empty:
        raise TableError("the table has no finished run (row 'end'); run the comparison first")
    if (twice := ends["run"].duplicated()).any():
        raise TableError(f"run {ends.loc[twice, 'run'].iloc[0]!r} has two rows 'end'; remove one")

    answered = ends["feasible"] & np.isfinite(ends["energy"])
    problems = _problems(table, ends, ends[answered])
    order = {name: i for i, name in enumerate(problems["problem"])}
    runs = ends.assign(
        answered=answered,
        order=ends["problem"].map(order),
        final=ends["energy"].where(answered),
    ).sort_values(["order", "solver", "seed", "run"], ignore_index=True)
    known = problems.set_index("problem")[["best", "start"]]
    runs[["best", "start"]] = known.loc[runs["problem"]].to_numpy()

    position = pd.Series(runs.index, index=runs["run"])
    incumbents = table[~is_end]
    left_out = ~incumbents["run"].isin(position.index)
    steps = _steps(runs, incumbents[~left_out], position, grace)

    last = steps.drop_duplicates("run", keep="last").set_index("run").reindex(runs.index)
    runs["energy"], runs["gap"] = last["energy"], last["gap"]
    runs["late"] = runs["answered"] & (runs["seconds"] > (1 + grace) * runs["time_limit"])
    return Results(
        problems=problems,
        runs=runs.drop(columns=["order", "answered", "row"]),
        steps=steps,
        unfinished=incumbents.loc[left_out, "run"].nunique(),
    )


def _checked(table: DataFrame) -> DataFrame:
    """Return the columns that the measures read, with their types."""
    if missing := [c for c in (*TEXT, *NUMBERS, *FLAGS) if c not in table.columns]:
        raise TableError(f"the table lacks the columns {', '.join(missing)}")
    typed: dict[str, Any] = {c: _text(table[c]) for c in TEXT}
    try:
        typed |= {c: pd.to_numeric(table[c]).astype(float) for c in NUMBERS}
    except (TypeError, ValueError) as error:
        raise TableError(f"a column of numbers contains another type: {error}") from None
    typed |= {c: table[c].astype(str).str.lower().isin(["true", "1", "1.0"]) for c in FLAGS}
    checked = pd.DataFrame(typed).reset_index(drop=True)
    for column in ("n", "k", "groups", "seed"):
        if not (checked[column] % 1 == 0).all():
            raise TableError(f"the column {column} has values that are not whole numbers")
        checked[column] = checked[column].astype(int)
    if not (np.isfinite(checked["time_limit"]) & (checked["time_limit"] > 0)).all():
        raise TableError("the column time_limit has values that are not positive seconds")
    if not np.isfinite(checked["start_energy"]).all():
        raise TableError("the column start_energy has values that are not finite")
    return checked


def _text(column: Series) -> Series:
    """Return a column of text, with NaN (empty in a CSV file) as ""."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _problems(table: DataFrame, ends: DataFrame, answers: DataFrame) -> DataFrame:
    """Return one row per problem, with E* and the best bound."""
    groups = table.groupby("problem", sort=True)
    for column in ("n", "k", "groups", "start_energy"):
        if (mixed := groups[column].nunique() > 1).any():
            name = mixed.idxmax()
            raise TableError(f"rows of the problem {name!r} have different values of {column}")
    found = groups.agg(
        family=("family", "first"),
        n=("n", "first"),
        k=("k", "first"),
        groups=("groups", "first"),
        given=("best_known", "min"),
        proved=("best_proved", "any"),
        start=("start_energy", "first"),
        start_kind=("start_kind", "first"),
    )
    reached = answers.groupby("problem")["energy"].min().reindex(found.index)
    found["bound"] = ends.groupby("problem")["bound"].max()
    found["best"] = np.fmin(found["given"], reached)
    # Without any state, the start is the best one known.
    found["best"] = found["best"].fillna(found["start"])
    optimal = answers[answers["known"] == "optimal"].groupby("problem")["energy"].min()
    near = gap(optimal.reindex(found.index), found["best"], found["start"]) <= AT_BEST
    undercut = gap(found["given"], found["best"], found["start"]) > AT_BEST
    found["proved"] = (found["proved"] & ~undercut) | near
    return (
        found.drop(columns="given").reset_index().sort_values(["n", "problem"], ignore_index=True)
    )


def _steps(runs: DataFrame, incumbents: DataFrame, position: Any, grace: float) -> DataFrame:
    """Return the improvements in time of runs that have a state."""
    last = runs.loc[runs["answered"], ["seconds", "final"]]
    rows = incumbents[incumbents["feasible"] & np.isfinite(incumbents["energy"])]
    steps = pd.concat(
        [
            pd.DataFrame(
                {
                    "run": position.loc[rows["run"]].to_numpy(),
                    "seconds": rows["seconds"].to_numpy(),
                    "energy": rows["energy"].to_numpy(),
                }
            ),
            pd.DataFrame({"run": last.index, "seconds": last["seconds"], "energy": last["final"]}),
        ]
    )
    of_run = runs.loc[steps["run"]]
    steps["energy"] = np.maximum(steps["energy"].to_numpy(), of_run["final"].to_numpy())
    in_time = steps["seconds"].to_numpy() <= (1 + grace) * of_run["time_limit"].to_numpy()
    steps = steps[in_time & of_run["answered"].to_numpy()]
    steps = steps.sort_values(["run", "seconds", "energy"], kind="stable", ignore_index=True)
    lowest = steps.groupby("run")["energy"].cummin()
    before = lowest.groupby(steps["run"]).shift(fill_value=np.inf)
    steps = steps[steps["energy"] < before]
    of_run = runs.loc[steps["run"]]
    steps["gap"] = gap(steps["energy"], of_run["best"].to_numpy(), of_run["start"].to_numpy())
    return steps.reset_index(drop=True)
