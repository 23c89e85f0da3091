"""The content of a run folder, read once for all reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from icbs.enumeration.comparison import FILE as OPTIMUM
from icbs.enumeration.comparison import Comparison
from icbs.errors import RunFolderError
from icbs.export.headers import TaskNotes
from icbs.export.safetensors_files import read_text
from icbs.recovery import FOLDER as RECOVERY
from icbs.recovery.folder import HISTORY
from icbs.recovery.result import RecoverySummary, StepRecord, describe
from icbs.report.evaluations import FILE, Evaluation, read_evaluations
from icbs.report.figure import Curve
from icbs.report.layers import LayerFigures, layer_figures, sizes_of
from icbs.run.history import BlockRecord
from icbs.run.locking import in_use
from icbs.run.results_files import SUMMARY
from icbs.run.run_folder import RunFolder
from icbs.run.table_file import TableFile


@dataclass(frozen=True)
class Overview:
    """A run, finished or not."""

    path: Path
    settings: Mapping[str, Any]
    """The pruner's settings."""
    start: str
    """Words on the initial masks."""
    task: str
    """Name of the task, or a description for a run of the Python library."""
    options: Mapping[str, Any]
    """The task's options."""
    from_command: bool
    """Whether the run was started by ``icbs prune``."""
    dense: Mapping[str, float]
    """Test figures of the dense model; empty if not recorded."""
    finished: bool
    running: bool | None
    """Whether a process works on an unfinished run; None if that is not known here."""
    passes: int
    """Number of passes done."""
    checkpoint: int
    """Passes before the last checkpoint of an unfinished run."""
    seconds: float
    """Wall seconds spent on pruning."""
    initial_loss: float
    """Held-out loss of the initial masks; NaN if not known yet."""
    loss: float
    """Lowest held-out loss so far; NaN if not known yet."""
    density: str
    """Description of the weights that the density counts; empty for an unfinished run."""
    history: list[BlockRecord]
    evaluations: list[Evaluation]
    sizes: Mapping[str, tuple[int, int]]
    """Layer name → numbers of weights and of kept weights, or dimension → groups; empty for an
    unfinished run."""
    start_seconds: float = 0.0
    """Wall seconds of the start, before the first pass."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by part of the passes; see :class:`icbs.run.costs.Costs`."""
    optimum: Comparison | None = None
    """Comparison with the true optimum, of a finished run that had one."""
    recovered: Mapping[str, float] = field(default_factory=dict)
    """Test figures of the recovered model; empty without one."""
    recovery: list[str] = field(default_factory=list)
    """Lines on the recovery; empty without one."""
    steps: list[StepRecord] = field(default_factory=list)
    """Steps of the recovery."""
    dense_loss: float = float("nan")
    """Held-out loss of the dense model in the recovery."""

    @classmethod
    def of(cls, run: str | Path) -> Overview:
        """Read a run folder.

        Raises
        ------
        RunFolderError
            If the folder has no run, or is damaged.
        """
        folder = RunFolder(Path(run))
        config = folder.config()
        status = folder.status()
        evaluations = read_evaluations(folder.path / FILE)
        # A figure is written at once, the progress about once per second.
        latest = max(evaluations, key=lambda row: row.step, default=None)
        newer = not status.finished and latest is not None and latest.step > status.passes
        try:
            notes = TaskNotes.of(folder.about())
        except ValueError:  # started by the library, with the caller's notes
            notes = None
        return cls(
            path=folder.path,
            settings=config.model_dump(),
            start=folder.start,
            task=notes.task if notes else "a model from Python",
            options=notes.task_options if notes else {},
            from_command=notes is not None,
            dense=notes.dense if notes else {},
            finished=status.finished,
            running=None if status.finished else in_use(folder.path),
            passes=latest.step if latest and newer else status.passes,
            checkpoint=status.checkpoint,
            seconds=latest.seconds if latest and newer else status.seconds,
            initial_loss=status.initial_loss,
            loss=status.loss,
            density=status.density,
            start_seconds=status.start_seconds,
            costs=status.costs,
            history=folder.history() if (folder.path / "history.csv").exists() else [],
            evaluations=evaluations,
            sizes=sizes_of(folder.final_masks(), status.groups),
            optimum=_read_optimum(folder.path / OPTIMUM) if status.finished else None,
            **_read_recovery(folder.path / RECOVERY),
        )

    @property
    def how_to_resume(self) -> str:
        """Command or function call that resumes the run."""
        if not self.from_command:
            return f"icbs.Pruner.resume({str(self.path)!r}, …)"
        return resume_command(self.path, self.task, self.settings["solver"])

    @property
    def by_pass(self) -> bool:
        """Whether acceptance was decided for whole passes."""
        return self.settings["acceptance"] == "pass"

    @property
    def curve(self) -> Curve:
        """The run for :mod:`icbs.report.figure`."""
        return Curve(
            self.path.name, self.evaluations, self.history, self.initial_loss, self.by_pass
        )

    @cached_property
    def layers(self) -> list[LayerFigures]:
        """Figures of each layer."""
        return layer_figures(self.history, self.sizes, by_pass=self.by_pass)

    @property
    def stages(self) -> dict[str, Mapping[str, float]]:
        """Test figures of the dense model, the initial masks and the last evaluation."""
        found: dict[str, Mapping[str, float]] = {}
        if self.dense:
            found["dense"] = self.dense
        if self.evaluations and self.evaluations[0].step == 0:
            found["start"] = self.evaluations[0].figures
        if self.evaluations:
            last = self.evaluations[-1]
            done = self.finished and last.step == self.passes
            found["pruned" if done else f"after pass {last.step}"] = last.figures
        if self.recovered:
            found["recovered"] = self.recovered
        return found


def _read_optimum(path: Path) -> Comparison | None:
    """Read a comparison with the true optimum; None if there is none.

    Raises
    ------
    RunFolderError
        If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return Comparison.from_json(read_text(path))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error


def _read_steps(path: Path) -> list[StepRecord]:
    """Read the history of a recovery; empty without one."""
    table = TableFile(path, StepRecord, "history", "restore the file")
    return table.read() if path.exists() else []


def _read_recovery(folder: Path) -> dict[str, Any]:
    """Read the figures of a finished recovery; empty without one.

    Raises
    ------
    RunFolderError
        If a file is damaged.
    """
    path = folder / SUMMARY
    if not path.exists():
        return {}
    try:
        facts = RecoverySummary.from_json(read_text(path)).model_dump()
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error
    rows = read_evaluations(folder / FILE)
    return {
        "recovered": rows[-1].figures if len(rows) > 1 else {},
        "recovery": describe(facts),
        "steps": _read_steps(folder / HISTORY),
        "dense_loss": facts["dense_loss"],
    }


def resume_command(folder: Path, task: str, solver: str) -> str:
    """Return the command that resumes a run, with the task or solver if it is user code."""
    named = {"task": task, "solver": solver}
    again = [f" --{what} {name}" for what, name in named.items() if ":" in name]
    return f"'icbs resume {folder}{''.join(again)}'"
