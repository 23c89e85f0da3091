"""A recovery on disk: settings, checkpoint, history and the recovered model.

- ``config.yaml``: settings
- ``manifest.json``: versions, and digests of settings, model, masks and samples
- ``checkpoint.safetensors``: the whole state after a step
- ``history.csv``: one row per step
- ``masks.safetensors``, ``summary.json``, and ``model.safetensors`` or the folder
  ``pretrained`` (models of transformers): the result

As in a run folder, the history may be newer than the checkpoint if a process was killed; its
later rows are then discarded and computed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from icbs.config.plain_yaml import dump_plain
from icbs.data.pytree import tensors
from icbs.data.samples import Samples
from icbs.errors import RunFolderError
from icbs.export.digests import described, digest, file_digest, json_digest
from icbs.export.headers import Count, Header, HistoryMark, Seconds
from icbs.export.masks import load_masks, save_masks
from icbs.export.pretrained import save_pruned
from icbs.export.safetensors_files import open_tensors, read_text, write_error, write_tensors
from icbs.recovery.memory import Plan
from icbs.recovery.result import RecoveryResult, StepRecord
from icbs.recovery.subject import Subject
from icbs.run.locked_folder import CONFIG, MANIFEST, LockedFolder
from icbs.run.table_file import TableFile
from problems.files import write_text

CHECKPOINT, HISTORY, SUMMARY = "checkpoint.safetensors", "history.csv", "summary.json"
MASKS = "masks.safetensors"
FORMAT = "icbs-recovery-1"


class RecoveryFacts(Header):
    """Figures of a checkpoint, in addition to the tensors."""

    manifest: str
    """Digest of the manifest."""
    history: HistoryMark
    stage: Count
    """Number of methods that are finished."""
    done: Count
    """Number of steps of the current method that are done."""
    judge: dict[str, float]
    seconds: Seconds


@dataclass
class Saved:
    """A state read from a checkpoint."""

    facts: RecoveryFacts
    tensors: dict[str, Tensor]
    history: list[StepRecord]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under a prefix."""
        start = f"{prefix}/"
        return {k.removeprefix(start): t for k, t in self.tensors.items() if k.startswith(start)}


class RecoveryFolder(LockedFolder):
    """Folder of one recovery.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        remedy = "restore the file, or start a new recovery in another folder"
        self._history = TableFile(path / HISTORY, StepRecord, "history", remedy)
        self._digest = ""

    @classmethod
    def open(cls, path: str | Path) -> AbstractContextManager[RecoveryFolder]:
        """Lock a new folder, or that of an earlier recovery, for a context."""
        exists = (Path(path) / CONFIG).exists()
        return cls.existing(path) if exists else cls.new(path)

    @classmethod
    def has_other_masks(cls, path: Path, masks: Mapping[str, Tensor]) -> bool:
        """Whether a folder has a finished recovery of other masks."""
        if not ((path / MANIFEST).exists() and (path / MASKS).exists()):
            return False
        earlier = load_masks(path / MASKS)
        return earlier.keys() != masks.keys() or any(
            not torch.equal(earlier[name], mask.cpu()) for name, mask in masks.items()
        )

    @property
    def started(self) -> bool:
        """Whether a recovery was started in the folder."""
        return (self.path / CONFIG).exists()

    def create(self, subject: Subject, about: Mapping[str, Any]) -> None:
        """Write manifest and, last, the settings, which mark a recovery.

        Raises
        ------
        RunFolderError
            If the folder can't be written.
        """
        settings = _settings_of(subject)
        content = _fingerprints(subject) | {
            "format": FORMAT,
            "versions": {name: version(name) for name in ("icbs-pruning", "torch", "numpy")},
            "plan": subject.plan.recorded(),
            "about": dict(about),
        }
        self._digest = json_digest(content)
        try:
            write_text(
                self.path / MANIFEST, json.dumps(content | {"digest": self._digest}, indent=2)
            )
            write_text(self.path / CONFIG, settings)
        except OSError as error:
            raise write_error(self.path, error) from error

    def plan(self) -> Plan:
        """Return the recorded batch sizes."""
        return Plan(**self._manifest()["plan"])

    def check(self, subject: Subject) -> None:
        """Refuse another model, masks, samples or settings than those of the recovery.

        Raises
        ------
        RunFolderError
        """
        recorded = self._manifest()
        self._digest = recorded["digest"]
        for what, found in _fingerprints(subject).items():
            if recorded.get(what) != found:
                raise RunFolderError(
                    f"not the {what} of the recovery in {self.path}: continue it with the same "
                    f"{what}, or start a new one in another folder"
                )

    def save(
        self,
        facts: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, Tensor]],
        history: Sequence[StepRecord],
    ) -> None:
        """Write history and checkpoint, in this order.

        Parameters
        ----------
        facts : mapping
            ``stage``, ``done``, ``judge`` and ``seconds``; see :class:`RecoveryFacts`.
        parts : mapping of str to mapping of str to Tensor
            Tensors by part (model, best state, method) and name.
        history : sequence of StepRecord

        Raises
        ------
        RunFolderError
            If they can't be written.
        """
        self.lock.check()
        try:
            self._history.append(history)
        except OSError as error:
            raise write_error(self._history.path, error) from error
        (self.path / SUMMARY).unlink(missing_ok=True)
        marks = {"manifest": self._digest, "history": self._history.mark()}
        flat = {
            f"{part}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for part, named in parts.items()
            for name, tensor in named.items()
        }
        write_tensors(self.path / CHECKPOINT, FORMAT, {**facts, **marks}, flat)

    def load(self) -> Saved | None:
        """Read the last checkpoint; None without one.

        Raises
        ------
        RunFolderError
            If the checkpoint or the history is damaged, or of another recovery.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        with open_tensors(path, "checkpoint", FORMAT) as (found, facts):
            read = RecoveryFacts.of(facts)
            if read.manifest != self._digest:
                raise RunFolderError(f"{path} is of another recovery than manifest.json")
            history = self._history.restore(read.history.model_dump())
            return Saved(read, found, history)

    def write_results(self, subject: Subject, result: RecoveryResult) -> None:
        """Write masks, the recovered model and the summary.

        Raises
        ------
        RunFolderError
            If a file can't be written.
        """
        try:
            save_masks(result.masks, self.path / MASKS)
            saved = save_pruned(subject.model, self.path)
            files = [path for path in sorted(saved.rglob("*")) if path.is_file()] or [saved]
            digests = {p.relative_to(self.path).as_posix(): file_digest(p) for p in files}
            text = json.dumps(result.summary() | {"files": digests}, indent=2)
            write_text(self.path / SUMMARY, text)
        except (OSError, SafetensorError) as error:
            raise write_error(self.path, error) from error

    def _manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            content = dict(json.loads(read_text(path)))
            stated = content.pop("digest", None)
            if json_digest(content) != stated:
                raise ValueError("its digest does not match its content")
            Plan(**content["plan"])
            return content | {"digest": stated}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error


def _settings_of(subject: Subject) -> str:
    return dump_plain(subject.config.model_dump())


def _fingerprints(subject: Subject) -> dict[str, str]:
    """Return digests of the settings that determine results, models, masks and samples."""
    settings = subject.config.model_dump(exclude={"time_limit", "max_memory", "checkpoint_every"})
    for name, value in {"judge": "loss", "prompt": 0}.items():
        if settings[name] == value:  # folders of earlier releases don't have them
            del settings[name]
    state = {f"{name}/pruned": tensor for name, tensor in subject.model.state_dict().items()}
    for layer in subject.layers:
        state[f"{layer.name}/dense"] = layer.dense
    masks = {layer.name: layer.pruned for layer in subject.layers}
    samples = [*_flat(subject.samples), *_flat(subject.heldout)]
    return {
        "settings": json_digest(settings),
        "model": _digest_of(state),
        "masks": _digest_of(masks),
        "samples": digest(part for tensor in samples for part in described(tensor)),
    }


def _flat(samples: Samples) -> list[Tensor]:
    return [*tensors(samples.inputs), samples.targets]


def _digest_of(named: Mapping[str, Any]) -> str:
    plain = {
        name: value
        for name, value in named.items()
        if isinstance(value, Tensor) and not value.is_meta and not value.is_quantized
    }
    return digest(p for name in plain for p in (name.encode(), *described(plain[name])))
