"""Assessments as rows: JSON, CSV files, and a table for the terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from problems.files import write_text
from solvers.readiness.assessment import Assessment
from solvers.readiness.counts import GateCount
from solvers.readiness.device import DeviceCircuit
from solvers.readiness.logical import LogicalCircuit
from solvers.readiness.target import Target
from solvers.readiness.verdict import Verdict, power

if TYPE_CHECKING:
    from rich.table import Table

#: Parts of an assessment, each a CSV file.
PARTS = ("problem", "logical", "devices", "quality", "annealers", "fault_tolerant", "verdicts")
#: Columns of the table in the terminal.
HEADINGS = (
    *("target", "qubits", "gates", "depth", "success", "chain", "fits", "up to n", "limit"),
)


def rows(assessments: Iterable[Assessment], part: str) -> list[dict[str, Any]]:
    """Return the rows of a part of several assessments, each with the problem's ``name``.

    Parameters
    ----------
    assessments : iterable of Assessment
    part : str
        One of :data:`PARTS`.
    """
    found = []
    for assessment in assessments:
        content = getattr(assessment, part)
        for row in content if isinstance(content, list) else [content]:
            found.append({"name": assessment.name} | flat(row))
    return found


def flat(row: Any) -> dict[str, Any]:
    """Return a part's fields without nesting, with what follows from them."""
    found: dict[str, Any] = {}
    for name, value in dataclasses.asdict(row).items():
        if isinstance(value, dict):
            found |= {f"{name}_{inner}": number for inner, number in value.items()}
        else:
            found[name] = value
    if isinstance(row, LogicalCircuit):
        total: GateCount = row.total
        found |= {f"total_{name}": value for name, value in dataclasses.asdict(total).items()}
    if isinstance(row, DeviceCircuit):
        found["success"] = row.success
    return found


def as_json(assessments: Sequence[Assessment], targets: Sequence[Target]) -> str:
    """Return everything as JSON: assessments, targets with their sources, versions."""
    content = {
        "assessments": [
            {"name": assessment.name} | {part: rows([assessment], part) for part in PARTS}
            for assessment in assessments
        ],
        "targets": [target.model_dump(mode="json", exclude_none=True) for target in targets],
        "versions": versions(),
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def as_csv(content: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with the union of their columns; empty cells for None."""
    columns = list(dict.fromkeys(name for row in content for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(content)
    return text.getvalue()


def write(assessments: Sequence[Assessment], targets: Sequence[Target], folder: Path) -> list[Path]:
    """Write ``readiness.json``, ``readiness.csv`` (a row per problem and target) and each part.

    Parts without rows are left out.

    Returns
    -------
    list of Path
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "readiness.json": as_json(assessments, targets),
        "readiness.csv": as_csv(summary(assessments)),
    }
    for part in PARTS:
        if content := rows(assessments, part):
            contents[f"{part}.csv"] = as_csv(content)
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


def summary(assessments: Iterable[Assessment]) -> list[dict[str, Any]]:
    """Return a row for each problem and target: main figures at the fewest layers, and verdict.

    Of an annealer, those of the embedding with fewer qubits, of a complete graph or by
    minorminer's heuristic (``embedding`` names it).
    """
    return [
        {"problem": assessment.name}
        | _figures(assessment, verdict)
        | {name: value for name, value in flat(verdict).items() if name != "n"}
        for assessment in assessments
        for verdict in assessment.verdicts
    ]


def terminal(assessment: Assessment) -> Table:
    """Return the summary of a problem as a table for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    figures, verdict = assessment.problem, assessment.verdicts[0]
    title = (
        f"{assessment.name}: n = {figures.n}, k = {figures.k}, {figures.density:.0%} coupled, "
        f"{figures.bits:.0f} bits"
    )
    if verdict.classical_seconds is not None:
        title += f", CPU {verdict.classical_seconds:.1g} s"
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )
    for heading in HEADINGS:
        left = heading in ("target", "fits", "limit")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    found = summary([assessment])
    for row in found:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    notes = []
    if any(row["kind"] == "gate" and row["largest_n"] is not None for row in found):
        notes.append("up to n: by counted gates, not compiled ones")
    if methods := [f"{row['target']} {row['embedding']}" for row in found if row["embedding"]]:
        notes.append(f"chains of the embedding with fewer qubits: {', '.join(methods)}")
    table.caption, table.caption_justify = Text("\n".join(notes), style="dim"), "left"
    return table


def quality_line(assessment: Assessment) -> str:
    """Return the quality of circuits without noise in one line, empty where nothing was simulated.

    The approximation ratio r is 0 for random feasible states and 1 at the optimum; σ are the
    standard errors by which the mean of as many shots is above random.
    """
    found = [row for row in assessment.quality if not row.skipped and row.ratio is not None]
    parts = [f"p = {row.p} {row.angles} {row.ratio:.2f} ({row.sigmas:.0f}σ)" for row in found]
    return "simulated quality r: " + ", ".join(parts) if parts else ""


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    found = {}
    for name in ("icbs-pruning", "qiskit", "minorminer", "dwave-graphs", "qdk"):
        try:
            found[name] = version(name)
        except Exception:  # metadata of a package that is missing
            continue
    return found


def _figures(assessment: Assessment, verdict: Verdict) -> dict[str, Any]:
    """Return the main figures of a target, at the fewest layers."""
    found: dict[str, Any] = {
        "n": assessment.problem.n,
        "qubits": None,
        "two_qubit_gates": None,
        "two_qubit_depth": None,
        "log10_success": None,
        "chain_max": None,
        "embedding": None,
        "shot_seconds": None,
    }
    if verdict.kind == "gate":
        device = next(row for row in assessment.devices if row.target == verdict.target)
        return found | {
            "qubits": None if device.skipped else device.qubits,
            "two_qubit_gates": device.two_qubit_gates,
            "two_qubit_depth": device.two_qubit_depth,
            "log10_success": device.log10_success,
            "shot_seconds": device.duration,
        }
    if verdict.kind == "annealer":
        embedded = [row for row in assessment.annealers if row.target == verdict.target]
        best = [row for row in embedded if row.found and row.faulty]
        if not best:
            return found
        least = min(best, key=lambda row: row.physical_qubits or 0)
        seconds = least.access_seconds
        return found | {
            "qubits": least.physical_qubits,
            "chain_max": least.chain_max,
            "embedding": least.method,
            "shot_seconds": seconds / least.anneals if seconds and least.anneals else None,
        }
    tolerant = next(row for row in assessment.fault_tolerant if row.target == verdict.target)
    return found | {"qubits": tolerant.physical_qubits, "shot_seconds": tolerant.shot_seconds}


def _cells(row: dict[str, Any]) -> list[str]:
    """Spell a row of :func:`summary` for the terminal."""
    success = row["log10_success"]
    fits = {True: "yes", False: "no", None: "?"}[row["fits"]]
    largest = row["largest_n"]
    if largest is None:
        largest = "any" if row["limit"] == "none" else "?"
    return [
        row["target"],
        *("" if row[name] is None else f"{row[name]:,}" for name in _COUNTS),
        "" if success is None else power(success),
        "" if row["chain_max"] is None else str(row["chain_max"]),
        fits,
        str(largest),
        "skipped" if row["skipped"] else row["limit"],
    ]


_COUNTS = ("qubits", "two_qubit_gates", "two_qubit_depth")


def _plain(content: Any) -> Any:
    """Replace what JSON can't hold: infinite numbers and NaN by null."""
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
