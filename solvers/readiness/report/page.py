"""Write assessments as one page of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from problems.files import write_text
from solvers.comparison.report.html import render
from solvers.errors import TableError
from solvers.readiness.assessment import Assessment
from solvers.readiness.report.charts import Scene, draw
from solvers.readiness.table import rows, summary
from solvers.readiness.target import Target
from solvers.readiness.verdict import power

#: Columns of the tables, and their headings.
SUMMARY = {
    "problem": "problem",
    "n": "n",
    "target": "target",
    "qubits": "qubits",
    "two_qubit_gates": "gates on two qubits",
    "two_qubit_depth": "depth",
    "success": "success",
    "chain_max": "longest chain",
    "embedding": "embedding",
    "shot_seconds": "seconds a shot",
    "fits": "fits",
    "largest_n": "largest n",
    "limit": "limit",
    "gap": "gap",
    "classical_seconds": "CPU s to the gap",
    "reason": "what stops the next size",
}
PROBLEM = {
    "name": "problem",
    "n": "n",
    "k": "k",
    "groups": "groups",
    "n_presolved": "n after presolve",
    "rank": "rank",
    "density": "pairs coupled",
    "negative_share": "negative",
    "range_cut_1": "range above 1 %",
    "range_cut_01": "range above 0.1 %",
    "bits": "bits",
    "log2_states": "log₂ of states",
    "penalised_range": "range with penalty",
}
QUALITY = {
    "name": "problem",
    "p": "p",
    "angles": "angles",
    "ratio": "r",
    "gap": "gap",
    "optimum_probability": "P(optimum)",
    "random_optimum_probability": "P at random",
    "sigmas": "σ above random",
    "above_random": "passes at 3σ",
    "skipped": "left out because",
}
ANNEALERS = {
    "name": "problem",
    "graph": "graph",
    "method": "method",
    "found": "found",
    "physical_qubits": "qubits",
    "chain_mean": "mean chain",
    "chain_max": "longest",
    "seconds": "seconds to embed",
    "access_seconds": "access s",
    "bits_needed": "bits needed",
    "bits": "bits",
    "resolved_share": "resolved",
    "chain_break_share": "chain breaks",
    "feasible_share": "feasible",
    "why": "remark",
}
TOLERANT = {
    "name": "problem",
    "target": "target",
    "p": "p",
    "logical_qubits": "logical qubits",
    "rotations": "rotations",
    "t_states": "T states",
    "logical_depth": "logical depth",
    "code_distance": "distance",
    "physical_qubits": "physical qubits",
    "shot_seconds": "seconds a shot",
    "shots": "shots to 99 %",
    "solution_seconds": "seconds to solution",
    "skipped": "left out because",
}


def write_report(
    assessments: Sequence[Assessment],
    targets: Sequence[Target],
    path: str | Path,
    title: str = "Readiness for quantum hardware",
) -> Path:
    """Write a self-contained page of HTML, which makes no network requests.

    Parameters
    ----------
    assessments : sequence of Assessment
    targets : sequence of Target
        Those of the assessments, with the sources of their figures.
    path : str or Path
        File to write; its folder must exist.
    title : str

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TableError
        If there are no assessments.
    MissingBackendError
        If Bokeh is not installed.
    """
    if not assessments:
        raise TableError("no assessments to report; assess one problem or more")
    scene = Scene(assessments, targets)
    charts = draw(scene)
    tables = _tables(assessments)
    page = render(
        __package__,
        charts,
        {
            "series": list(scene.styles),
            "tables": {table["key"]: table["data"] for table in tables},
        },
        title=title,
        styles=list(scene.styles.values()),
        charts=charts,
        tables=tables,
        targets=[_target(target) for target in targets],
        p=scene.p,
    )
    write_text(path, page)
    return Path(path)


def _tables(assessments: Sequence[Assessment]) -> list[dict[str, Any]]:
    """Return the tables: cells as shown, and data as downloaded."""
    annealers = [row | {"why": _remark(row)} for row in rows(assessments, "annealers")]
    found = [
        _table("verdicts", "Targets and verdicts", SUMMARY, summary(assessments)),
        _table("problems", "Problems", PROBLEM, rows(assessments, "problem")),
        _table("quality-table", "Quality against p", QUALITY, rows(assessments, "quality")),
        _table("annealers", "Embeddings in annealers", ANNEALERS, annealers),
        _table("tolerant", "Error correction", TOLERANT, rows(assessments, "fault_tolerant")),
    ]
    return [table for table in found if table["cells"]]


def _remark(row: dict[str, Any]) -> str:
    return row["skipped"] or row["reason"] or ""


def _table(
    key: str, title: str, columns: dict[str, str], content: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    names = list(dict.fromkeys(name for row in content for name in row))
    shown = [name for name in columns if any(_cell(name, row) for row in content)]
    return {
        "key": key,
        "title": title,
        "headings": [columns[name] for name in shown],
        "classes": [_class(name) for name in shown],
        "cells": [[_cell(name, row) for name in shown] for row in content],
        "data": {
            "names": names,
            "rows": [[_plain(row.get(name)) for name in names] for row in content],
        },
    }


def _class(name: str) -> str:
    """Return the style of a column: numbers stand right, words left, sentences are broken."""
    if name in ("reason", "skipped", "why"):
        return "long"
    words = (
        "problem",
        "name",
        "target",
        "limit",
        "fits",
        "graph",
        "method",
        "found",
        "angles",
        "embedding",
    )
    return "word" if name in words else ""


def _cell(name: str, row: dict[str, Any]) -> str:
    """Spell a value for the page; an empty text for None."""
    if name == "success":
        value = row.get("log10_success")
        return "" if value is None else power(value)
    value = row.get(name)
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        share = name in ("density", "negative_share", "resolved_share", "feasible_share")
        return f"{value:.0%}" if share else f"{value:.3g}"
    return str(value)


def _target(target: Target) -> dict[str, Any]:
    """Return a target's figures by their sources."""
    content = target.model_dump(mode="json", exclude_none=True)
    return {
        "name": target.name,
        "kind": target.kind,
        "description": target.description,
        "sources": [
            {
                "figures": ", ".join(_figure(name, content.get(name)) for name in source.figures),
                "source": source.source,
                "date": source.date.isoformat(),
                "assumed": source.assumed,
            }
            for source in target.sources
        ],
    }


def _figure(name: str, value: Any) -> str:
    if name == "couplings":
        return f"{len(value)} couplings"
    if isinstance(value, list):
        return f"{name} {_joined(value)}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _joined(values: Iterable[Any]) -> str:
    return " ".join(str(value) for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return _joined(value)
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return None
    return value
