"""Reports of folders of several runs: of a search, and of pruning in steps or by other methods."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icbs.density.folder import ANSWER, SEARCH, STEPS, SUMMARY, read_points, runs_within
from icbs.density.mask_maker import ICBS, MODEL
from icbs.density.result import Point
from icbs.density.target import Target
from icbs.errors import RunFolderError
from icbs.export.safetensors_files import read_text
from icbs.formatting import byte_size, counted, duration, significant
from icbs.recovery import FOLDER as RECOVERY
from icbs.recovery.result import RecoverySummary
from icbs.run import results_files
from icbs.run.locking import in_use


@dataclass(frozen=True)
class FolderReport:
    """Lines and a table on a folder of several runs."""

    lines: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)
    """Rows of the table, as text by column."""
    runs: list[Path] = field(default_factory=list)
    """Runs of iCBS within, which have reports of their own."""

    @classmethod
    def of(cls, folder: Path) -> FolderReport | None:
        """Read a folder of a search, or of pruning in steps; None for another one.

        Raises
        ------
        RunFolderError
            If a file is damaged.
        """
        for manifest, read in ((SEARCH, _search), (STEPS, _steps)):
            if (folder / manifest).exists():
                runs = runs_within(folder)
                lines, rows = read(folder, _json(folder / manifest))
                if runs:
                    lines.append(f"'icbs report {runs[-1]}' shows a single run")
                return cls(lines, rows, runs)
        return None


def kind_of_folder(folder: Path) -> str:
    """Return words on a folder of a search or of pruning in steps; empty for another one."""
    for manifest, words in ((SEARCH, "a search"), (STEPS, "pruning")):
        if (folder / manifest).exists():
            return f"{words} by {_method(_json(folder / manifest))}"
    return ""


def will_run(folder: Path) -> bool:
    """Whether runs of iCBS may start in a folder of a search, or of pruning in steps."""
    for manifest, result in ((SEARCH, ANSWER), (STEPS, SUMMARY)):
        if (folder / manifest).exists():
            finished = (folder / result).exists()
            return not finished and _json(folder / manifest).get("method") == ICBS
    return False


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
        if not isinstance(found, dict):
            raise ValueError("it is not a mapping")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error
    return found


def _method(facts: Mapping[str, Any]) -> str:
    method = "iCBS" if facts.get("method") == ICBS else str(facts.get("method"))
    recovery = facts.get("recovery")
    name = recovery.get("method", "auto") if isinstance(recovery, dict) else None
    return method if name is None else f"{method}, recovery {name}"


def _state(folder: Path) -> str:
    if used := in_use(folder):
        return "running"
    state = "not finished" if used is None else "interrupted"
    return f"{state}; the same command or call, with the same folder, continues"


def _search(folder: Path, facts: Mapping[str, Any]) -> tuple[list[str], list[dict[str, str]]]:
    points = read_points(folder)
    lines = [f"search by {_method(facts)}, judged on {facts.get('judge', 'unknown samples')}"]
    answer = _json(folder / ANSWER) if (folder / ANSWER).exists() else {}
    if answer:
        # Answers of earlier releases don't have the lines.
        lines += answer.get("lines") or [f"density {answer.get('density')} meets the target"]
    else:
        met = [point.density for point in points if point.met]
        found = f"{min(met):g} is the lowest so far that meets it" if met else "none meets it"
        lines.append(
            f"no answer; {counted(len(points), 'point')} of the curve: {found}"
            if points
            else "no answer"
        )
        if not points or met:
            lines.append(_state(folder))
    if (folder / "curve.html").exists():
        lines.append(f"the curve is in {folder / 'curve.html'}")
    return lines, [_point(point) for point in points]


def _point(point: Point) -> dict[str, str]:
    row = {"density": f"{point.density:g}"}
    if point.judged:
        name, limit, _ = point.judged.split()
        target = Target(name, float(limit))
        row |= {target.kind.words: point.spelled(target), "target": point.outcome}
    return row | {
        "file": byte_size(point.size),
        "MACs": f"{point.macs:,}",
        "seconds": f"{point.seconds:.1f}",
    }


def _steps(folder: Path, facts: Mapping[str, Any]) -> tuple[list[str], list[dict[str, str]]]:
    steps = facts["steps"] if isinstance(facts.get("steps"), list) else []
    count = len(steps)
    lines = [f"pruning by {_method(facts)}, {counted(count, 'step')}"]
    if (folder / SUMMARY).exists():
        done = _json(folder / SUMMARY)
        seconds = float(done.get("seconds", math.nan))
        lines.append(
            f"finished: density {float(done.get('density', math.nan)):.4f}"
            + (f" in {duration(seconds)}" if math.isfinite(seconds) else "")
        )
        lines.append(f"masks and compressed model are in {folder}")
    else:
        lines.append(_state(folder))
    return lines, [_step(folder / f"step-{i + 1}", i, steps[i]) for i in range(count)]


def _step(folder: Path, number: int, settings: Any) -> dict[str, str]:
    density = settings.get("density") if isinstance(settings, dict) else None
    row = {
        "step": str(number + 1),
        "density": "" if density is None else f"{density:g}",
        "state": "done" if (folder / MODEL).exists() else "started" if folder.exists() else "",
    }
    path = folder / results_files.SUMMARY
    if path.exists():
        run = results_files.read_summary(path)
        row["seconds"] = f"{run.seconds:.1f}"
        row["held-out loss"] = f"{significant(run.initial_loss)} → {significant(run.loss)}"
    path = folder / RECOVERY / results_files.SUMMARY
    if path.exists():
        try:
            found = RecoverySummary.from_json(read_text(path))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error
        row["recovery"] = (
            f"{found.method}, loss {significant(found.initial_loss)} → {significant(found.loss)}"
        )
        row["seconds of it"] = f"{found.seconds:.1f}"
    return row
