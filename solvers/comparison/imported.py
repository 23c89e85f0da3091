"""External runs: CSV tables, and results of MQLib.

Without a column ``x`` of states, such as ``0110…``, their energies can't be recomputed. Energies
below the lowest one known are then rejected (:mod:`solvers.comparison.refute`).
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from problems import CardinalityQUBO, InvalidProblemError
from problems.files import regular
from problems.suggest import did_you_mean
from solvers.comparison.cases import Case, Source
from solvers.comparison.records import digest
from solvers.comparison.refute import CLAIMED
from solvers.errors import TableError
from solvers.finalize import ROUNDING

if TYPE_CHECKING:
    from solvers.comparison.campaign import Campaign

#: Required and optional columns of a CSV table.
NEEDED, OPTIONAL = ("problem", "solver", "seed", "seconds", "energy"), ("bound", "x")
_MQLIB = ("graphname", "heuristic", "objective")
#: ``limit,heuristic,"file",objective,seconds,[objective:seconds;…]``
_MQLIB_LINE = re.compile(r'([\d.eE+-]+),(\w+),"?([^",]*)"?,([\d.eE+-]+),([\d.eE+-]+),\[([^\]]*)\]')

#: Number of problems that are kept in memory while states are evaluated.
_MAX_PROBLEMS = 2


def read_imported(path: str | Path, campaign: Campaign) -> list[dict[str, Any]]:
    """Read a table of runs on the problems of a campaign.

    Parameters
    ----------
    path : str or Path
        A CSV with the columns ``problem, solver, seed, seconds, energy`` and, where known,
        ``bound`` and ``x``, one row per incumbent; a results file of MQLib
        (``timestamp, graphname, heuristic, seed, limit, objective, runtime``); or the output of
        its program. MQLib maximises and ignores the offset: E = offset - objective.
    campaign : Campaign
        With the problems by name; a file name of MQLib is a problem's name without its folder
        and extension.

    Returns
    -------
    list of dict
        Rows of the table.

    Raises
    ------
    TableError
        If a line can't be read, a problem is not in the campaign, or a state does not fit its
        problem; the message names it.
    """
    text = regular(path).read_text(encoding="utf-8-sig")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise TableError(f"{path} is empty; it should be a CSV with columns {', '.join(NEEDED)}")
    runs: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    reader = _mqlib_lines if _MQLIB_LINE.match(lines[0]) else _csv_rows
    for where, step in reader(lines, str(path)):
        case = _case(step["problem"], campaign, where)
        if step.pop("maximised", False):
            step["energy"] = case.offset - step["energy"]
        key = case.name, step["solver"], step["seed"]
        runs.setdefault(key, []).append(step | {"where": where})
    if taken := sorted({solver for _, solver, _ in runs} & set(campaign.entrants)):
        raise TableError(
            f"{path} has a solver {taken[0]!r}, as has the campaign; rename it in that file"
        )
    read_once = lru_cache(maxsize=_MAX_PROBLEMS)(Source.load)
    rows: list[dict[str, Any]] = []
    for (problem, solver, seed), found in runs.items():
        case = campaign.cases[problem]
        for step in found:
            if step.get("x"):
                step["energy"] = _recomputed(case, step, read_once(case.source))
        rows += _run(campaign, case, solver, seed, found, Path(path).name)
    return rows


def _csv_rows(lines: list[str], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, values) of a table with a header."""
    reader = csv.DictReader(lines)
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    mqlib = set(_MQLIB) <= set(header)
    if not mqlib and (missing := [name for name in NEEDED if name not in header]):
        raise TableError(
            f"{path} has no column {missing[0]!r}; a table of runs has {', '.join(NEEDED)} and, "
            f"where known, {', '.join(OPTIONAL)}"
        )
    for number, row in enumerate(reader, start=2):
        where = f"line {number} of {path}"
        if mqlib:
            yield (
                where,
                {
                    "problem": Path(row["graphname"]).stem,
                    "solver": row["heuristic"],
                    "seed": _integer(row.get("seed") or row.get("run") or "0", where, "seed"),
                    "seconds": _number(row.get("runtime") or row.get("limit"), where, "runtime"),
                    "energy": _number(row["objective"], where, "objective"),
                    "maximised": True,
                },
            )
            continue
        bound = row.get("bound")
        yield (
            where,
            {
                "problem": row["problem"].strip(),
                "solver": row["solver"].strip(),
                "seed": _integer(row["seed"], where, "seed"),
                "seconds": _number(row["seconds"], where, "seconds"),
                "energy": _number(row["energy"], where, "energy"),
                "bound": _number(bound, where, "bound") if bound and bound.strip() else None,
                "x": (row.get("x") or "").strip(),
            },
        )


def _mqlib_lines(lines: list[str], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, values) of the output of MQLib's program, one line per run."""
    seeds: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=1):
        where = f"line {number} of {path}"
        if (match := _MQLIB_LINE.match(line)) is None:
            if re.fullmatch(r"Solution:|[01 ]+", line.strip()):  # printed with the option -ps
                continue
            raise TableError(f"{where} is not in MQLib's output format: {line!r:.80}")
        problem, solver = Path(match[3]).stem, match[2]
        seed = seeds[problem, solver] = seeds.get((problem, solver), -1) + 1
        common = {"problem": problem, "solver": solver, "seed": seed, "maximised": True}
        for step in filter(None, match[6].split(";")):
            objective, _, seconds = step.partition(":")
            yield (
                where,
                common
                | {
                    "seconds": _number(seconds, where, "time"),
                    "energy": _number(objective, where, "objective"),
                },
            )
        yield (
            where,
            common
            | {
                "seconds": _number(match[5], where, "runtime"),
                "energy": _number(match[4], where, "objective"),
            },
        )


def _run(
    campaign: Campaign, case: Case, solver: str, seed: int, found: list[dict[str, Any]], file: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one run: improvements and the end."""
    from solvers.comparison.planned import rows_of

    found.sort(key=lambda step: step["seconds"])
    trace: list[list[float]] = []
    for step in found:
        energy = float(step["energy"])
        if math.isfinite(energy) and (not trace or energy < trace[-1][1]):
            trace.append([step["seconds"], energy])
    bounds = [step["bound"] for step in found if step.get("bound") is not None]
    end = {
        "seconds": found[-1]["seconds"],
        "energy": trace[-1][1] if trace else None,
        "feasible": bool(trace),
        "status": "solved" if trace else "nothing",
        "bound": max(bounds) if bounds else None,
        "known": "bounded" if bounds else "",
    }
    if trace and bounds and trace[-1][1] - max(bounds) <= ROUNDING * case.magnitude:
        end["known"] = "optimal"
    common = campaign.common(case) | {
        "run": digest(["imported", file, case.name, case.hash, solver, seed]),
        "solver": solver,
        "options": "{}",
        "seed": seed,
        "versions": json.dumps({}),
        "machine": f"imported from {file}",
    }
    claimed = {} if all(step.get("x") for step in found) else {CLAIMED: True}
    yield from rows_of(common | claimed, {"trace": trace, "end": end})


def _recomputed(case: Case, step: dict[str, Any], problem: CardinalityQUBO) -> float:
    """Return the energy of the state of a row."""
    where = step["where"]
    try:
        x = np.array([int(c) for c in step["x"]])
        feasible, energy = problem.is_feasible(x), problem.energy(x)
    except (ValueError, InvalidProblemError) as error:
        raise TableError(f"{where}: x is not a state of problem {case.name!r}: {error}") from error
    if not feasible:
        raise TableError(f"{where}: x violates the cardinality of problem {case.name!r}")
    return float(energy)


def _case(name: str, campaign: Campaign, where: str) -> Case:
    if name not in campaign.cases:
        known = list(campaign.cases)
        raise TableError(
            f"{where}: problem {name!r} is not in the campaign"
            f"{did_you_mean(name, known)}; its problems: {', '.join(known[:20])}"
        )
    return campaign.cases[name]


def _number(text: Any, where: str, name: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise TableError(f"{where}: {name} is {text!r:.40}; it must be a number") from None
    if name in ("seconds", "time", "runtime") and not 0 <= value < math.inf:
        raise TableError(f"{where}: {name} is {text!r:.40}; it must be seconds, 0 or more")
    return value


def _integer(text: Any, where: str, name: str) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        raise TableError(f"{where}: {name} is {text!r:.40}; it must be an integer") from None
