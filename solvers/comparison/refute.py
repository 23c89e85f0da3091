"""Rejection of bounds, proofs and energies that contradict other runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from solvers.comparison.cases import Case
from solvers.finalize import ROUNDING

#: Key of the rows whose energies could not be recomputed.
CLAIMED = "claimed"

Row = dict[str, Any]


def refuted(rows: list[Row], cases: Mapping[str, Case]) -> list[Row]:
    """Return the rows without refuted claims.

    A bound above the energy of any run's state, or above the best value known, is removed, and so
    is a proof of a higher energy. Energies that could not be recomputed, those of an imported
    table, never lower the best energy known: those below it are left out. The column ``error`` of
    a run's end states this.

    Parameters
    ----------
    rows : list of dict
        Columns by name; the rows of a run are consecutive.
    cases : dict
        Problems by name.
    """
    lowest = {name: case.best for name, case in cases.items() if math.isfinite(case.best)}
    for row in rows:
        energy = _number(row.get("energy"))
        if math.isfinite(energy) and not row.get(CLAIMED):
            lowest[row["problem"]] = min(energy, lowest.get(row["problem"], math.inf))
    kept: list[Row] = []
    for _, run in groupby(rows, key=lambda row: row["run"]):
        *trace, end = run
        name = end["problem"]
        known = lowest.get(name, -math.inf if end.get(CLAIMED) else math.inf)
        slack = ROUNDING * cases[name].magnitude
        if end.get(CLAIMED):
            trace, end = _checked(trace, end, known, slack)
        kept += [*trace, _without_refuted(end, lowest.get(name, math.inf), slack)]
    return kept


def _checked(trace: list[Row], end: Row, known: float, slack: float) -> tuple[list[Row], Row]:
    """Leave out claims below the lowest energy known; within rounding, raise them to it."""
    kept = list(_improving(trace, known, slack))
    energy = kept[-1]["energy"] if kept else None
    end = end | {"energy": energy, "feasible": bool(kept)}
    below = [row["energy"] for row in trace if row["energy"] < known - slack]
    if below:
        what = (
            f"it claims {min(below):.9g}, below the lowest recomputed energy {known:.9g}; "
            "add a column x with the states"
        )
        end["error"] = "; ".join(filter(None, [end.get("error"), what]))
        end["status"] = "solved" if kept else "nothing"
    return kept, end


def _improving(trace: list[Row], known: float, slack: float) -> Iterator[Row]:
    best = math.inf
    for row in trace:
        if row["energy"] >= known - slack and (energy := max(row["energy"], known)) < best:
            best = energy
            yield row | {"energy": energy}


def _without_refuted(end: Row, lowest: float, slack: float) -> Row:
    why = ""
    if _number(end.get("bound")) > lowest + slack:
        why = f"its bound {end['bound']:.9g} lies above a state of energy {lowest:.9g}"
    elif end.get("known") == "optimal" and _number(end.get("energy")) > lowest + slack:
        why = f"it proved {end['energy']:.9g}, and there is a state of energy {lowest:.9g}"
    if not why:
        return end
    error = "; ".join(filter(None, [end.get("error"), f"refuted: {why}"]))
    return end | {"bound": None, "known": "", "error": error}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
