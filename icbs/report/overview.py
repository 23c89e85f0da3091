"""What a run folder holds, read once for every way of showing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from icbs.export.headers import TaskNotes
from icbs.report.evaluations import FILE, Evaluation, read_evaluations
from icbs.report.figure import Curve
from icbs.report.layers import LayerFigures, layer_figures
from icbs.run.history import Row
from icbs.run.run_folder import RunFolder


@dataclass(frozen=True)
class Overview:
    """A run, finished or not."""

    path: Path
    settings: Mapping[str, Any]
    """The pruner's settings."""
    task: str
    """Name of the task, or what stands for it."""
    options: Mapping[str, Any]
    """The task's options."""
    from_command: bool
    """Whether ``icbs prune`` began it, and not the library."""
    dense: Mapping[str, float]
    """Test figures of the dense model; empty where nobody noted them."""
    finished: bool
    passes: int
    """Passes done."""
    seconds: float
    """Wall seconds spent on pruning."""
    initial_loss: float
    """Held-out loss of the start; NaN where it is not known yet."""
    loss: float
    """Lowest held-out loss so far; NaN where it is not known yet."""
    density: str
    """Of what the density is the density, in words; empty while the run goes on."""
    history: list[Row]
    evaluations: list[Evaluation]
    sizes: Mapping[str, tuple[int, int]]
    """Layer name → weights and kept weights; empty while the run has no final masks."""

    @classmethod
    def of(cls, run: str | Path) -> Overview:
        """Read a run folder.

        Raises
        ------
        RunFolderError
            If the folder holds no run, or is damaged.
        """
        folder = RunFolder(Path(run))
        config = folder.config()
        facts = folder.facts()
        try:
            notes = TaskNotes.of(folder.about())
        except ValueError:  # begun by the library, with notes of its caller's own
            notes = None
        return cls(
            path=folder.path,
            settings=config.model_dump(),
            task=notes.task if notes else "a model from Python",
            options=notes.task_options if notes else {},
            from_command=notes is not None,
            dense=notes.dense if notes else {},
            finished=facts.finished,
            passes=facts.passes,
            seconds=facts.seconds,
            initial_loss=facts.initial_loss,
            loss=facts.loss,
            density=facts.density,
            history=folder.history() if (folder.path / "history.csv").exists() else [],
            evaluations=read_evaluations(folder.path / FILE),
            sizes={
                name: (mask.numel(), int(mask.sum()))
                for name, mask in sorted(folder.final_masks().items())
            },
        )

    @property
    def how_to_resume(self) -> str:
        """Command, or function, that goes on with the run."""
        if not self.from_command:
            return f"icbs.Pruner.resume({str(self.path)!r}, …)"
        return resume_command(self.path, self.task, self.settings["solver"])

    @property
    def by_pass(self) -> bool:
        """Whether all moves of a pass were judged together."""
        return self.settings["acceptance"] == "pass"

    @property
    def curve(self) -> Curve:
        """The run as a curve to draw."""
        return Curve(
            self.path.name, self.evaluations, self.history, self.initial_loss, self.by_pass
        )

    @cached_property
    def layers(self) -> list[LayerFigures]:
        """Figures layer by layer."""
        return layer_figures(self.history, self.sizes, by_pass=self.by_pass)

    @property
    def stages(self) -> dict[str, Mapping[str, float]]:
        """Test figures of the dense model, of the start and of the masks so far."""
        found: dict[str, Mapping[str, float]] = {}
        if self.dense:
            found["dense"] = self.dense
        if self.evaluations and self.evaluations[0].step == 0:
            found["start"] = self.evaluations[0].figures
        if self.evaluations:
            last = self.evaluations[-1]
            done = self.finished and last.step == self.passes
            found["pruned" if done else f"after pass {last.step}"] = last.figures
        return found


def resume_command(folder: Path, task: str, solver: str) -> str:
    """Return the command that goes on with a run; code of the user's own is named again."""
    named = {"task": task, "solver": solver}
    again = [f" --{what} {name}" for what, name in named.items() if ":" in name]
    return f"'icbs resume {folder}{''.join(again)}'"
