"""Follow a run folder that another process writes, reading only what is new."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from icbs.dashboard.layer_sums import LayerSums, add_rows
from icbs.dashboard.tail import Tail
from icbs.density.folder import POINT, read_point
from icbs.density.result import Point
from icbs.errors import RunFolderError
from icbs.export.headers import TaskNotes
from icbs.export.safetensors_files import read_header
from icbs.model.gates import JOINED
from icbs.report.decisions import Decision, decisions, held_out_loss
from icbs.report.evaluations import FILE, Evaluation, read_evaluations
from icbs.report.layers import natural
from icbs.run.history import BlockRecord, HistoryFile
from icbs.run.locked_folder import CONFIG
from icbs.run.locking import in_use
from icbs.run.progress_file import PROGRESS, ProgressRecord
from icbs.run.results_files import SUMMARY, read_summary
from icbs.run.run_folder import CHECKPOINT, RunFolder, at_checkpoint
from icbs.run.table_file import TableFile

_QUIET = 60.0
"""Seconds without a new row after which a run may have been interrupted."""


class RunReader:
    """Everything that a dashboard shows of one run.

    Parameters
    ----------
    path : Path
        Folder of a run, finished or not.

    Raises
    ------
    RunFolderError
        If the folder has no run, or its configuration is damaged.
    """

    def __init__(self, path: Path) -> None:
        folder = RunFolder(path)
        self.path = path
        self.settings: Mapping[str, Any] = folder.config().model_dump()
        self.start = folder.start
        """Words on the initial masks."""
        self.plan = folder.plan()
        try:
            notes = TaskNotes.of(folder.about())
        except ValueError:  # started by the library
            notes = None
        self.task = notes.task if notes else "a model from Python"
        self.dense: Mapping[str, float] = notes.dense if notes else {}
        self.sizes = dict(folder.manifest.layers)
        """Layer → number of weights; empty for an unfinished run of an earlier release."""
        self.by_pass = self.settings["acceptance"] == "pass"
        self.deleted = False
        self.problem = ""
        """Message on a file that can't be read; empty without one."""
        self.version = 0
        """Number of changes so far."""
        progress = TableFile(path / PROGRESS, ProgressRecord, "table of progress", "delete it")
        self._progress = Tail(progress)
        self._history = Tail(HistoryFile(path / "history.csv"))
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self._clear()
        self._clear_history()
        if not self.sizes:
            self.sizes = {name: mask.numel() for name, mask in folder.final_masks().items()}
        self.refresh()

    def _clear(self) -> None:
        self.progress: list[ProgressRecord] = []
        self.evaluations: list[Evaluation] = []
        self.kept: dict[str, int] = {}
        """Layer → number of weights kept, after the last checkpoint."""
        self.checkpoint = 0
        """Passes before the last checkpoint."""
        self.summary: Mapping[str, Any] = {}
        """The summary of a finished run."""
        self.point: Point | None = None
        """Figures of the run in a search; None without one."""
        self.restarts = 0
        """Number of times that rows were replaced, by a run that was resumed."""
        self._initial_loss = math.nan

    def _clear_history(self) -> None:
        self.decisions: list[Decision] = []
        self.layers: dict[str, LayerSums] = {}
        self._waiting: list[BlockRecord] = []

    def refresh(self) -> int:
        """Read what is new; return :attr:`version`, which grows with each change."""
        gone = not (self.path / CONFIG).exists()
        if gone != self.deleted:
            self.deleted, self.version = gone, self.version + 1
        if gone:
            return self.version
        try:
            changed = [
                self._read_progress(),
                self._read_history(),
                self._read_small_files(),
            ]
            problem = ""
        except (OSError, RunFolderError) as error:  # perhaps deleted in between
            changed, problem = [], str(error) if (self.path / CONFIG).exists() else ""
        if any(changed) or problem != self.problem:
            self.version += 1
        self.problem = problem
        return self.version

    def _read_progress(self) -> bool:
        if not (self.path / PROGRESS).exists():  # a run of an earlier release
            return False
        rows, replaced = self._progress.read()
        if replaced:
            self.progress, self.restarts = [], self.restarts + 1
        self.progress += rows
        return bool(rows) or replaced

    def _read_history(self) -> bool:
        if not (self.path / "history.csv").exists():
            return False
        rows, replaced = self._history.read()
        if replaced:
            self._clear_history()
            self.restarts += 1
        # The last pass may not be complete yet, unless nothing new has come.
        known = self._waiting + rows
        last = known[-1].step if rows else math.inf
        whole = [row for row in known if row.step < last]
        self._waiting = [row for row in known if row.step >= last]
        self.decisions += decisions(whole, by_pass=self.by_pass)
        add_rows(self.layers, whole, by_pass=self.by_pass)
        return bool(rows or whole) or replaced

    def _read_small_files(self) -> bool:
        """Read files that are rewritten as a whole, if they have changed."""
        changed = False
        if self._is_new(FILE):
            self.evaluations, changed = read_evaluations(self.path / FILE), True
        if self._is_new(CHECKPOINT):
            facts, changed = read_header(self.path / CHECKPOINT, "checkpoint"), True
            with suppress(KeyError, TypeError, AttributeError):  # of an earlier release
                self.kept = {name: int(of["current"]) for name, of in facts["kept"].items()}
            self._initial_loss = float(facts.get("initial_loss", math.nan))
            self.checkpoint = int(facts.get("step", 0))
        if self._is_new(POINT):
            self.point, changed = read_point(self.path / POINT), True
        if self._is_new(SUMMARY):
            self.summary, changed = read_summary(self.path / SUMMARY).model_dump(), True
            self._initial_loss = self.summary["initial_loss"]
        elif self.summary and not (self.path / SUMMARY).exists():  # continued
            self.summary, changed = {}, True
        return changed

    def _is_new(self, name: str) -> bool:
        try:
            facts = (self.path / name).stat()
        except FileNotFoundError:
            self._stamps[name] = None
            return False
        before, now = self._stamps.get(name), (facts.st_mtime_ns, facts.st_size)
        self._stamps[name] = now
        return before != now

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return bool(self.summary)

    @property
    def state(self) -> str:
        """Words on the state of the run."""
        if self.deleted:
            return "folder deleted; figures as last read"
        if self.finished:
            return "finished"
        used = in_use(self.path)
        if used is not None:
            done = self.progress[-1].step if self.progress else self.checkpoint
            return "running" if used else f"interrupted; {at_checkpoint(self.checkpoint, done)}"
        names = ("history.csv", PROGRESS, CONFIG)
        files = [self.path / name for name in names if (self.path / name).exists()]
        with suppress(OSError):
            quiet = time.time() - max(file.stat().st_mtime for file in files)
            if quiet > max(_QUIET, 5 * self._pace):
                return f"not finished; no new pass for {quiet / 60:.0f} min"
        return "running"

    @property
    def _pace(self) -> float:
        """Wall seconds of the last pass."""
        rows = self.progress[-2:]
        return rows[-1].seconds - rows[0].seconds if rows else 0.0

    @property
    def initial_loss(self) -> float:
        """Held-out loss of the initial masks; NaN if not known yet."""
        if math.isfinite(self._initial_loss):
            return self._initial_loss
        first = self.progress[:1]
        return first[0].loss if first and first[0].step == 0 else math.nan

    @property
    def losses(self) -> list[tuple[float, float]]:
        """Points (seconds, held-out loss of the current masks)."""
        if self.progress:
            return [(row.seconds, row.loss) for row in self.progress]
        if math.isfinite(self.initial_loss):
            return held_out_loss(self.initial_loss, self.decisions)
        return []

    @property
    def costs(self) -> dict[str, float]:
        """Wall seconds by part of the run; empty if not known."""
        if self.summary.get("costs"):
            known = {"start": self.summary["start_seconds"], **self.summary["costs"]}
            seconds = self.summary["seconds"]
        elif self.progress:
            last = self.progress[-1]
            known, seconds = {"start": last.start, **last.costs}, last.seconds
        else:
            return {}
        return known | {"the rest": max(0.0, seconds - math.fsum(known.values()))}

    @property
    def layer_names(self) -> list[str]:
        """Names of all layers; layers with common blocks are one, with a joint name."""
        joint = [name for name in self.layers if JOINED in name]
        covered = {part for name in joint for part in name.split(JOINED)}
        names = {*(set(self.sizes) - covered), *(set(self.layers) - covered), *joint}
        return sorted(names, key=natural)

    def density(self, name: str) -> float:
        """Return the share of a layer's weights that is kept; NaN if not known."""
        parts = [name] if name in self.sizes else name.split(JOINED)
        size = sum(self.sizes.get(part, 0) for part in parts)
        known = size and all(part in self.kept for part in parts)
        return sum(self.kept[part] for part in parts) / size if known else math.nan
