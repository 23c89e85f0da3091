"""A run on disk: configuration, checkpoint, history and results.

- ``config.yaml``: the pruner's settings
- ``manifest.json``: versions, and hashes of the settings, the model and the samples
- ``initial.safetensors``: the initial masks, if they were given
- ``checkpoint.safetensors``: the whole state after a pass
- ``history.csv``: one row per block
- ``progress.csv``: one row per pass, for programs that follow the run
- ``blocks/``: saved block problems; see :mod:`icbs.run.saved_blocks`
- ``groups.safetensors``: kept groups that can be cut, if groups were pruned
- ``masks.safetensors``, ``summary.json``, and ``model.safetensors`` or the folder
  ``pretrained`` (models of transformers): the result

The history is appended to; all other files are written under a temporary name and renamed. If a
run is killed between the two, the history may be newer than the checkpoint: rows after the
checkpoint, and blocks saved since, are discarded on resume and computed again. One process at a
time uses a folder.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from icbs import parallel
from icbs.config import PrunerConfig
from icbs.config.old_names import translate
from icbs.config.plain_yaml import dump_plain, load_plain
from icbs.errors import ConfigError, RunFolderError
from icbs.export.digests import digest, file_digest
from icbs.export.headers import HistoryMark, Manifest
from icbs.export.masks import load_masks, save_masks
from icbs.export.safetensors_files import read_header, read_text, write_error
from icbs.formatting import counted
from icbs.model.coverage import density_in_words
from icbs.run import checkpoint
from icbs.run.context import RunContext
from icbs.run.history import BlockRecord, HistoryFile, read_history
from icbs.run.locked_folder import CONFIG, INITIAL, MANIFEST, LockedFolder
from icbs.run.manifest import fingerprints, make_manifest, read_manifest
from icbs.run.memory import Plan
from icbs.run.progress_file import ProgressFile, ProgressRecord
from icbs.run.result import Progress, Result
from icbs.run.results_files import (
    MASKS,
    SUMMARY,
    read_summary,
    write_groups,
    write_masks,
    write_model,
)
from icbs.run.saved_blocks import BlockSaver
from icbs.run.state import RunState
from problems.files import regular, remove_leftovers, write_text

CHECKPOINT = "checkpoint.safetensors"
log = logging.getLogger("icbs")


@dataclass(frozen=True)
class RunStatus:
    """Progress of a run, finished or not."""

    finished: bool
    passes: int
    """Passes done."""
    seconds: float
    """Wall seconds spent on pruning."""
    initial_loss: float
    """Held-out loss of the initial masks; NaN if not known yet."""
    loss: float
    """Lowest held-out loss so far; NaN if not known yet."""
    density: str = ""
    """Description of the weights that the density counts; empty for an unfinished run."""
    start_seconds: float = 0.0
    """Wall seconds of the start, before the first pass."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by part of the passes; empty in earlier releases."""
    checkpoint: int = 0
    """Passes before the last checkpoint of an unfinished run, after which it can be resumed."""
    groups: Mapping[str, Any] = field(default_factory=dict)
    """Figures of the kept groups of a finished run; see :mod:`icbs.groups.summary`."""


class RunFolder(LockedFolder):
    """Folder of one run.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._history = HistoryFile(path / "history.csv")
        self._progress = ProgressFile(path)
        self._saved = False

    def create(
        self,
        context: RunContext,
        about: Mapping[str, Any],
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write initial masks, manifest and, last, the configuration, which marks a run.

        Raises
        ------
        ConfigError
            If ``about`` can't be written as JSON.
        RunFolderError
            If the folder can't be written.
        """
        settings = dump_plain(context.config.model_dump())

        def write() -> None:
            try:
                remove_leftovers(self.path)
                (self.path / INITIAL).unlink(missing_ok=True)
                if masks is not None:
                    save_masks(masks, self.path / INITIAL)
                given = None if masks is None else file_digest(self.path / INITIAL)
                write_text(self.path / MANIFEST, make_manifest(context, settings, given, about))
                write_text(self.path / CONFIG, settings)
            except OSError as error:
                raise write_error(self.path, error) from error

        parallel.on_rank0(write)
        if context.config.save_blocks is not None:
            self._save_blocks(context)

    def _save_blocks(self, context: RunContext, mark: Mapping[str, Any] | None = None) -> None:
        """Let the run save block problems, after those before a checkpoint."""
        saver = BlockSaver.of(self.path, context, self.lock.check)
        parallel.on_rank0(lambda: saver.restore(mark))
        context.block_saver = saver

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest; see :mod:`icbs.run.manifest`."""
        return read_manifest(self.path / MANIFEST)

    def config(self) -> PrunerConfig:
        """Read the settings of the run.

        Raises
        ------
        RunFolderError
            If there is no run, or its configuration is damaged.
        """
        path = self.path / CONFIG
        try:
            text = read_text(path)
            settings = load_plain(text)
            if digest([text.encode()]) != self.manifest.settings:
                raise ValueError("it has been changed: its digest is not that in the manifest")
            present, _ = translate(settings)
            return PrunerConfig.of(**present)
        except (FileNotFoundError, NotADirectoryError):
            raise RunFolderError(
                f"{self.path} has no run (no config.yaml){_instead(self.path)}"
            ) from None
        except ConfigError as error:
            raise RunFolderError(
                f"{path} has settings that this version does not support: {error!s:.1000}. Use "
                "the release that started the run, or start a new one"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error

    def about(self) -> dict[str, Any]:
        """Return the notes given to :meth:`create`."""
        self.config()
        return self.manifest.about

    def plan(self) -> Plan | None:
        """Return the memory plan of the run; None for a run of an older version."""
        plan = self.manifest.plan
        return None if plan is None else Plan(**plan.model_dump())

    def status(self) -> RunStatus:
        """Read the status from the summary, or else from the last checkpoint and the progress.

        Raises
        ------
        RunFolderError
            If either is damaged.
        """
        if (self.path / SUMMARY).exists():
            found = read_summary(self.path / SUMMARY)
            words = density_in_words(found.model_dump())
            return RunStatus(
                True,
                found.passes,
                found.seconds,
                found.initial_loss,
                found.loss,
                words,
                found.start_seconds,
                found.costs,
                groups={"groups": found.groups},
            )
        path = self.path / CHECKPOINT
        saved = RunStatus(False, 0, 0.0, math.nan, math.nan)
        if path.exists():
            with checkpoint.read_checkpoint(path) as (state, _):
                saved = RunStatus(
                    False,
                    state.step,
                    state.seconds,
                    state.initial_loss,
                    state.best_loss,
                    start_seconds=state.start_seconds,
                    costs=state.costs,
                    checkpoint=state.step,
                )
        return _advanced(saved, self._progress.read())

    def final_masks(self) -> dict[str, Tensor]:
        """Return the masks of a finished run; empty for an unfinished one.

        Raises
        ------
        RunFolderError
            If the file is damaged.
        """
        path = self.path / MASKS
        return load_masks(path) if path.exists() else {}

    def initial_masks(self) -> dict[str, Tensor] | None:
        """Return the given initial masks; None if the setting ``initial`` determined them.

        Raises
        ------
        RunFolderError
            If the file is damaged, missing or of another run.
        """
        path = self.path / INITIAL
        try:
            found = file_digest(regular(path)) if path.exists() else None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} can't be read: {error}") from error
        # Manifests of earlier releases don't have it.
        if "initial" in self.manifest.model_fields_set and found != self.manifest.initial:
            raise RunFolderError(
                f"{path} is not the file of initial masks of this run; restore it, or start a new "
                "run"
            )
        return None if found is None else load_masks(path)

    @property
    def start(self) -> str:
        """Words on the initial masks: the setting ``initial``, or that masks were given."""
        given = self.manifest.initial is not None or (self.path / INITIAL).exists()
        return "given masks" if given else str(self.config().initial)

    def check(self, context: RunContext) -> None:
        """Refuse a model or samples other than those of the run.

        Raises
        ------
        RunFolderError
        """
        recorded = self.manifest
        for what, found in fingerprints(context).items():
            if getattr(recorded, what) != found:
                raise RunFolderError(
                    f"not the {what} of the run in {self.path}: resume it with the same "
                    f"{what}, or start a new run"
                )

    def checkpoint(self, context: RunContext, state: RunState) -> None:
        """Save the state; a failure after the first checkpoint is logged, and the run continues.

        Raises
        ------
        RunFolderError
            If the first checkpoint can't be written.
        """
        first, self._saved = not self._saved, True
        if first:
            parallel.on_rank0(lambda: self.save(context, state))
        elif parallel.rank() == 0:
            try:
                self.save(context, state)
            except RunFolderError as error:
                log.warning(
                    "no checkpoint after pass %d: %s. The run continues and tries again after %d "
                    "more passes",
                    state.step,
                    error,
                    context.config.checkpoint_every,
                )

    def save(self, context: RunContext, state: RunState) -> None:
        """Write history and checkpoint, in this order, and remove the summary of a finished run.

        Raises
        ------
        RunFolderError
            If they can't be written; the last checkpoint stays.
        """
        self.lock.check()
        try:
            self._history.append(state.history)
        except OSError as error:
            raise write_error(self._history.path, error) from error
        with suppress(OSError):
            self._progress.write()
        # The summary of a finished run that is continued is out of date.
        (self.path / SUMMARY).unlink(missing_ok=True)
        marks = {"history": self._history.mark()}
        if context.block_saver is not None:
            marks["blocks"] = context.block_saver.flush()
        path = self.path / CHECKPOINT
        checkpoint.write_checkpoint(path, context, state, self.manifest.digest, marks)

    def load(self, context: RunContext) -> RunState | None:
        """Restore the state of the last checkpoint into the model; None without a checkpoint.

        Raises
        ------
        RunFolderError
            If the checkpoint or the history is damaged, or of another run.
        """
        path, saves = self.path / CHECKPOINT, context.config.save_blocks is not None
        if not path.exists():
            if saves:
                self._save_blocks(context)
            return None
        with checkpoint.read_checkpoint(path) as (facts, tensors):
            if facts.manifest != self.manifest.digest:
                raise RunFolderError(
                    f"{path} is of another run than manifest.json; restore the file of this run, "
                    "or start a new run"
                )
            history = self._history.restore(facts.history.model_dump())
            self._progress.restore(facts.step)
            if facts.blocks is not None:
                self._save_blocks(context, facts.blocks.model_dump())
            elif saves:
                self._save_blocks(context)
            layers, tabu = context.layers, context.config.tabu
            return RunState.restored(
                layers, context.acceptance_rule(), tabu, facts, tensors, history
            )

    def note(self, now: Progress, state: RunState) -> None:
        """Write progress and history, about once per second, for programs that follow the run.

        Errors of writing are ignored.
        """
        if parallel.rank() > 0 or not self._progress.add(now, state):
            return
        begin = time.monotonic()
        with suppress(OSError, RunFolderError):
            self.lock.check()
            self._history.append(state.history, sync=False)
            self._progress.write()
        self._progress.wait(time.monotonic() - begin)

    def record(self, context: RunContext, state: RunState) -> None:
        """Append the history without a checkpoint, to document failures.

        A resumed run repeats these passes. Errors of writing are ignored.
        """
        with suppress(OSError, RunFolderError):
            self._history.append(state.history)
            if context.block_saver is not None:
                context.block_saver.flush()

    def history(self) -> list[BlockRecord]:
        """Read the history and check the rows before the last checkpoint.

        Raises
        ------
        RunFolderError
            If the history is missing or damaged.
        """
        path = self.path / CHECKPOINT
        # Checkpoints of earlier releases don't have the mark.
        if path.exists() and "history" in (facts := read_header(path, "checkpoint")):
            try:
                mark = HistoryMark.of(facts["history"])
            except ValueError as error:
                raise RunFolderError(f"{path} is damaged: {error}") from error
            HistoryFile(self._history.path).restore(mark.model_dump())
        return read_history(self._history.path)

    def write_results(self, context: RunContext, state: RunState, result: Result) -> None:
        """Write the results; a failure of one part does not prevent the others.

        Raises
        ------
        RunFolderError
            If a part can't be written; with the result as an attribute.
        """
        if parallel.rank() > 0:
            return
        failures = []
        for write in (
            lambda: self.save(context, state),
            lambda: write_masks(self.path, result),
            lambda: write_groups(self.path, context, result),
            lambda: write_model(self.path, context.model, result),
        ):
            try:
                self.lock.check()
                write()
            except RunFolderError as error:
                failures.append(str(error))
        if failures:
            raise RunFolderError(
                f"the run is finished, but not all results are in {self.path}: "
                f"{'; '.join(dict.fromkeys(failures))}. Save error.result.masks with "
                "icbs.save_masks, or resume the run when the folder can be written",
                result,
            )


def at_checkpoint(checkpoint: int, done: int) -> str:
    """Return words on the last checkpoint of an interrupted run after some passes."""
    lost = done - checkpoint
    repeats = f"; resume repeats {counted(lost, 'pass')}" if lost > 0 else ""
    return f"checkpoint at pass {checkpoint}{repeats}"


def _advanced(saved: RunStatus, rows: Sequence[ProgressRecord]) -> RunStatus:
    """Return the status after the rows of progress, which may be newer than the checkpoint."""
    if not rows or rows[-1].step < saved.passes:
        return saved
    first, last = rows[0], rows[-1]
    losses = [row.loss for row in rows] + [saved.loss]
    known = [saved.initial_loss, first.loss if first.step == 0 else math.nan]
    return dataclasses.replace(
        saved,
        passes=last.step,
        seconds=last.seconds,
        initial_loss=next(filter(math.isfinite, known), math.nan),
        loss=min(filter(math.isfinite, losses), default=math.nan),
        start_seconds=last.start,
        costs=last.costs,
    )


def _instead(folder: Path) -> str:
    """Name the comparison, or the runs of a search or of pruning in steps, for a message."""
    from solvers.comparison.journal import is_comparison

    if is_comparison(folder):
        return (
            "; it is a comparison of solvers: open its report.html, or use 'icbs watch' while it "
            "lasts"
        )
    found = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if not found:
        return ""
    more = ", …" if len(found) > 3 else ""
    return f"; it contains the runs {', '.join(found[:3])}{more}: name one of them"
