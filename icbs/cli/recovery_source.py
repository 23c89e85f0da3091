"""Sources of `icbs recover`: a run, pruning by another method or in steps, or masks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from icbs.cli.output_folders import new_folder
from icbs.cli.recovery import pruned_copy
from icbs.cli.session import check_task, task_notes
from icbs.density.folder import STEPS, SUMMARY
from icbs.density.mask_maker import MODEL
from icbs.errors import ConfigError, RunFolderError
from icbs.export.compressed import load_compressed
from icbs.export.headers import TaskNotes
from icbs.export.masks import apply_masks, load_masks
from icbs.export.safetensors_files import read_text
from icbs.recovery import FOLDER
from icbs.run.results_files import MASKS, model_files


@dataclass(frozen=True)
class Source:
    """A pruned model, as a task with masks."""

    task: str
    options: dict[str, Any]
    dense: dict[str, float] | None
    """Test figures of the dense model, if they were recorded."""
    masks: dict[str, Tensor]
    pruned: Callable[[nn.Module], nn.Module]
    """Return the pruned model, given the dense one."""
    folder: Path
    """Folder of the recovery, by default."""
    again: str = "the same command"
    """Command that continues an interrupted recovery in that folder."""
    of_run: bool = False
    """Whether the model is that of a run, which has a held-out loss already."""

    @classmethod
    def open(cls, path: Path, task: str | None, options: dict[str, Any]) -> Source:
        """Read a folder, or a file of masks.

        Parameters
        ----------
        path : Path
        task : str, optional
            The task on the command line; necessary with a file of masks.
        options : dict
            Options of that task.

        Raises
        ------
        ConfigError
            If the task is missing, or another one than that of the folder.
        RunFolderError, LayerError
            If something is missing or damaged.
        """
        if path.is_file():
            return cls._of_masks(path, task, options)
        if options:
            raise ConfigError(
                f"{path} has the options of its task; leave {', '.join(options)} out, or give a "
                "file of masks"
            )
        return cls._of_steps(path, task) if (path / STEPS).exists() else cls._of_run(path, task)

    @classmethod
    def _of_masks(cls, path: Path, task: str | None, options: dict[str, Any]) -> Source:
        if task is None:
            raise ConfigError(f"{path} is a file of masks, of no known task; add --task NAME")
        masks = load_masks(path)

        def pruned(dense: nn.Module) -> nn.Module:
            model = copy.deepcopy(dense)
            apply_masks(model, masks)
            return model

        folder = new_folder(Path("runs"))
        again = f"the same command, with --out {folder},"
        return cls(task, options, None, masks, pruned, folder, again)

    @classmethod
    def _of_run(cls, path: Path, task: str | None) -> Source:
        notes = task_notes(path, task)
        model_files(path)  # those of a finished run
        masks = load_masks(path / MASKS)
        found = cls._of_notes(notes, masks, lambda dense: pruned_copy(dense, path), path)
        return replace(found, of_run=True)

    @classmethod
    def _of_steps(cls, path: Path, task: str | None) -> Source:
        if not (path / SUMMARY).exists():
            raise RunFolderError(
                f"the pruning in {path} is not finished; continue it by the same 'icbs prune', "
                f"with --run {path}"
            )
        try:
            notes = TaskNotes.of(json.loads(read_text(path / SUMMARY))["about"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{path / SUMMARY} has no task, so the pruning was not started by 'icbs prune', "
                f"or by an earlier release; give its masks, {path / MASKS}, and --task NAME"
            ) from error
        check_task(notes, task, path)
        state, masks = load_compressed(path / MODEL)

        def pruned(dense: nn.Module) -> nn.Module:
            model = copy.deepcopy(dense)
            model.load_state_dict(state)
            return model

        return cls._of_notes(notes, masks, pruned, path)

    @classmethod
    def _of_notes(
        cls,
        notes: TaskNotes,
        masks: dict[str, Tensor],
        pruned: Callable[[nn.Module], nn.Module],
        path: Path,
    ) -> Source:
        options = dict(notes.task_options)
        return cls(notes.task, options, dict(notes.dense), masks, pruned, path / FOLDER)
