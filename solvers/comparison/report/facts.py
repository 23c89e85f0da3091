"""Summary of problems, solvers, settings and failed runs, as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from solvers.comparison.measures import GRACE, Results, proofs

if TYPE_CHECKING:
    from pandas import DataFrame

#: Characters of an error that are shown.
LONGEST = 400
STARTS = {
    "status quo": "the energy of the mask unchanged",
    "random mean": "the mean of random feasible states",
}
MEANING = {
    "unsupported": "not supported",
    "failed": "failed",
    "timeout": "killed past its limit",
    "nothing": "found no feasible state",
    "solved": "solved",
}


def facts(table: DataFrame, results: Results) -> list[str]:
    """Return lines of text: problems, starts, limits, machine, versions."""
    problems, runs = results.problems, results.runs
    n = problems["n"]
    limits = ", ".join(f"{limit:g}" for limit in sorted(runs["time_limit"].unique()))
    starts = problems["start_kind"].replace("", "unknown start").value_counts()
    lines = [
        f"{_count(len(problems), 'problem')} with n = {n.min()} to {n.max()}, "
        f"{_count(len(results.solvers), 'solver')}, "
        f"{_count(runs['seed'].nunique(), 'seed')}, {_count(len(runs), 'run')}, "
        f"time limit {limits} s",
        f"E*: proved optimal for {problems['proved'].sum()} of {len(problems)} problems, else the "
        "best energy known; E₀: "
        + ", ".join(f"{STARTS.get(kind, kind)} ({count})" for kind, count in starts.items()),
    ]
    for column, unit in (("machine", "machine"), ("cores", "cores per run")):
        if column in table.columns:
            values = ", ".join(sorted({str(v) for v in table[column].dropna()} - {""}))
            lines += [f"{unit}: {values}"] if values else []
    if versions := _versions(table):
        lines.append("versions: " + ", ".join(f"{name} {v}" for name, v in versions.items()))
    if options := _options(table):
        lines.append("options: " + "; ".join(f"{name} {value}" for name, value in options.items()))
    if late := int(runs["late"].sum()):
        lines.append(
            f"{_count(late, 'run')} returned more than {GRACE:.0%} after the time limit: states "
            "found after that do not count"
        )
    if results.unfinished:
        lines.append(f"{_count(results.unfinished, 'run')} not finished and left out")
    if uneven := _uneven(runs):
        lines.append("not every solver ran on every (problem, seed): " + uneven)
    return lines


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _uneven(runs: DataFrame) -> str:
    """Return the number of (problem, seed) of each solver, if they differ."""
    counts = runs.drop_duplicates(["problem", "seed", "solver"]).groupby("solver").size()
    whole = len(runs.drop_duplicates(["problem", "seed"]))
    if (counts == whole).all():
        return ""
    return ", ".join(f"{name} on {count} of {whole}" for name, count in counts.items())


def _versions(table: DataFrame) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for text in _unique(table, "versions"):
        for name, version in _json(text).items():
            found.setdefault(str(name), set()).add(str(version))
    return {name: " and ".join(sorted(found[name])) for name in sorted(found)}


def _options(table: DataFrame) -> dict[str, str]:
    """Return the options of each solver that has any."""
    if "options" not in table.columns:
        return {}
    pairs = table[["solver", "options"]].dropna().drop_duplicates()
    return {
        str(solver): str(options)
        for solver, options in sorted(pairs.astype(str).to_numpy().tolist())
        if options not in ("", "{}", "null")
    }


def _unique(table: DataFrame, column: str) -> list[str]:
    return [] if column not in table.columns else [str(v) for v in table[column].dropna().unique()]


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def failures(results: Results) -> list[dict[str, Any]]:
    """Return the runs that returned no state, grouped by reason.

    Returns
    -------
    list of dict
        ``solver, status, why, runs, problems``.
    """
    runs = results.runs[results.runs["status"] != "solved"]
    rows = []
    for (solver, status, error), group in runs.groupby(["solver", "status", "error"]):
        why = error if len(error) <= LONGEST else error[:LONGEST] + " …"
        cells = [
            f"{problem} (seed {', '.join(map(str, sorted(seeds)))})"
            for problem, seeds in group.groupby("problem", sort=False)["seed"]
        ]
        rows.append(
            {
                "solver": solver,
                "status": MEANING.get(status, status),
                "why": why,
                "runs": len(group),
                "problems": ", ".join(cells),
            }
        )
    return rows


def refuted(results: Results) -> list[str]:
    """Return the claims (proofs, bounds) that a better state refutes, one line each."""
    found = proofs(results)
    return [
        f"{row.solver} on {row.problem}, seed {row.seed}"
        for row in found[found["refuted"]].itertuples()
    ]
