"""Results as submissions to QOBLIB (Koch et al., arXiv 2504.03832).

A solver's results are one submission: a folder with a folder for each instance, which contains
``NAME_summary.csv``, ``NAME_solution.txt`` and ``NAME_objective_time_series.json``. Columns,
their order and the rules for values are those of the library's guide for contributors and of its
checker, as of 2026; the paper's own list lacks Affiliation, Paradigm and Time to Solution.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from problems import CardinalityQUBO
from problems.files import write_text
from problems.packing import unpack
from solvers.comparison.cases import Case
from solvers.comparison.entrants import Entrant

if TYPE_CHECKING:
    from pandas import DataFrame

    from solvers.comparison.campaign import Campaign

#: Columns of a summary, in their order.
COLUMNS = (
    *("Problem", "Submitter", "Affiliation", "Date", "Reference"),
    *("Best Objective Value", "Optimality Bound", "Modeling Approach"),
    *("# Decision Variables", "# Binary Variables", "# Integer Variables"),
    *("# Continuous Variables", "# Non-Zero Coefficients", "Coefficients Type"),
    *("Coefficients Range", "Workflow", "Algorithm Type", "Paradigm", "# Runs"),
    *("# Feasible Runs", "# Successful Runs", "Success Threshold", "Hardware Specifications"),
    *("Total Runtime", "Time to Solution", "CPU Runtime", "GPU Runtime", "QPU Runtime"),
    *("Other HW Runtime", "Remarks"),
)
#: ε: a run is successful with an energy of at most f + ε |f|, f the best of the solver's own.
THRESHOLD = 1e-4
_UNKNOWN = "N/A"
#: Variables beyond which the couplings of a factored problem are not counted.
_COUNTED = 8192
_PARADIGMS = {
    "qaoa": "Quantum Simulator",
    "qpu": "Quantum Hardware",
    "hybrid": "Quantum Hardware",
}


def export(campaign: Campaign, table: DataFrame, folder: str | Path) -> list[Path]:
    """Write a submission for each solver of a campaign.

    Submitter, affiliation and reference are N/A, to be filled in. Problems
    on which a solver found no feasible state are left out.

    Parameters
    ----------
    campaign : Campaign
        Carried out.
    table : pandas.DataFrame
        Its table.
    folder : str or Path
        Made if it is missing; files of the same names are replaced.

    Returns
    -------
    list of Path
        The summaries, ``folder/SOLVER/NAME/NAME_summary.csv``.
    """
    written = []
    ends = table[table["row"] == "end"].set_index("run")
    for case in campaign.cases.values():
        numbers = _coefficients(case)
        for entrant in campaign.entrants.values():
            mine = [
                run
                for run in campaign.runs
                if (run.problem, run.solver) == (case.name, entrant.label)
                and run.key in campaign.answers
            ]
            answers = [campaign.answers[run.key] for run in mine]
            if not any(answer["x"] for answer in answers):
                continue
            rows = ends.loc[[run.key for run in mine]].to_dict("records")
            name = _file_name(case.name)
            place = Path(folder) / _file_name(entrant.label) / name
            place.mkdir(parents=True, exist_ok=True)
            best = min((a for a in answers if a["x"]), key=lambda a: a["end"]["energy"])
            state = unpack(best["x"], case.n)
            series = [_series(case, run.start, a) for run, a in zip(mine, answers, strict=True)]
            summary = _summary(campaign, case, entrant, rows, answers, numbers)
            written.append(place / f"{name}_summary.csv")
            write_text(written[-1], _csv({"Problem": name} | summary))
            write_text(place / f"{name}_solution.txt", "".join(f"{bit}\n" for bit in state))
            write_text(
                place / f"{name}_objective_time_series.json",
                json.dumps([run for run in series if run], indent=1) + "\n",
            )
    return written


def _summary(
    campaign: Campaign,
    case: Case,
    entrant: Entrant,
    rows: list[dict[str, Any]],
    answers: list[dict[str, Any]],
    numbers: dict[str, Any],
) -> dict[str, Any]:
    feasible = [row for row in rows if math.isfinite(row["energy"])]
    best = min(row["energy"] for row in feasible)
    proved = any(row["known"] == "optimal" for row in rows)
    bound = max((row["bound"] for row in rows if math.isfinite(row["bound"])), default=None)
    if proved:
        bound = best
    good = [row for row in feasible if row["energy"] <= best + THRESHOLD * abs(best)]
    penalty = [row["penalty"] for row in rows if math.isfinite(row["penalty"])]
    seconds = float(np.mean([row["seconds"] for row in rows]))
    paradigm = _PARADIGMS.get(entrant.name, "Classical")
    found = [answer["trace"][-1][0] for answer in answers if answer["trace"]]
    config = campaign.config
    return {
        "Submitter": _UNKNOWN,
        "Affiliation": _UNKNOWN,
        "Date": date.today().isoformat(),
        "Reference": _UNKNOWN,
        "Best Objective Value": repr(best),
        "Optimality Bound": _UNKNOWN if bound is None else repr(bound),
        "Modeling Approach": "QUBO with the cardinality as a penalty"
        if penalty
        else "Binary quadratic program with a cardinality",
        "# Decision Variables": case.n,
        "# Binary Variables": case.n,
        "# Integer Variables": 0,
        "# Continuous Variables": 0,
        **numbers,
        "Workflow": f"{entrant.name} with {entrant.options}, {_versions(entrant)}",
        "Algorithm Type": "Stochastic" if entrant.stochastic else "Deterministic",
        "Paradigm": paradigm,
        "# Runs": len(rows),
        "# Feasible Runs": len(feasible),
        "# Successful Runs": len(good),
        "Success Threshold": THRESHOLD,
        "Hardware Specifications": f"{rows[0]['machine']}; {config.cores} of its CPUs a run",
        "Total Runtime": f"{seconds:.6g}",
        "Time to Solution": f"{float(np.mean(found)):.6g}",
        "CPU Runtime": f"{seconds:.6g}" if paradigm == "Classical" else _UNKNOWN,
        "GPU Runtime": _UNKNOWN,
        "QPU Runtime": _UNKNOWN,
        "Other HW Runtime": _UNKNOWN,
        "Remarks": f"time limit {config.time_limit:g} s; runtimes are wall seconds",
    }


def _series(case: Case, started: bool, answer: dict[str, Any]) -> list[dict[str, float]]:
    """Return the incumbents of a run, from its start to its end; never rising."""
    if not answer["trace"]:
        return []
    points = list(answer["trace"])
    if started:
        points.insert(0, [0.0, case.start_energy])
    points.append([max(answer["end"]["seconds"], points[-1][0]), points[-1][1]])
    lowest = np.minimum.accumulate([energy for _, energy in points])
    return [
        {"Time": seconds, "Incumbent": energy}
        for (seconds, _), energy in zip(points, lowest.tolist(), strict=True)
    ]


def _coefficients(case: Case) -> dict[str, Any]:
    """Count the coefficients of the objective and the constraints, and give their range."""
    problem = case.source.load()
    if problem.is_factored and problem.n > _COUNTED:
        kind = "Continuous"
        return {
            "# Non-Zero Coefficients": _UNKNOWN,
            "Coefficients Type": kind,
            "Coefficients Range": f"{_UNKNOWN} - {_UNKNOWN}, {_UNKNOWN} - {_UNKNOWN}",
        }
    linear, pairs = _terms(problem)
    whole = all((values == np.round(values)).all() for values in (linear, pairs))
    return {
        # Each variable is in the constraint of its group.
        "# Non-Zero Coefficients": len(linear) + len(pairs) + problem.n,
        "Coefficients Type": "Integer" if whole else "Continuous",
        "Coefficients Range": f"{_range(linear)}, {_range(pairs)}",
    }


def _terms(problem: CardinalityQUBO) -> tuple[Any, Any]:
    """Return the nonzero coefficients of ``x_i`` and of ``x_i x_j``."""
    pairs = 2 * problem.Q[np.triu_indices(problem.n, 1)]
    return problem.diagonal[problem.diagonal != 0], pairs[pairs != 0]


def _range(values: Any) -> str:
    if not len(values):
        return f"{_UNKNOWN} - {_UNKNOWN}"
    return f"{float(values.min()):.9g} - {float(values.max()):.9g}"


def _versions(entrant: Entrant) -> str:
    return ", ".join(f"{name} {v}" for name, v in json.loads(entrant.versions).items())


def _csv(row: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return text.getvalue()


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name).strip("_") or "unnamed"
