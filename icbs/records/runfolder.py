"""A run on disk: configuration, checkpoint, history and results.

- ``config.yaml``: the pruner's settings
- ``manifest.json``: versions, and fingerprints of the model and the samples
- ``initial.safetensors``: the masks that the run was begun with, where they were given
- ``checkpoint.safetensors``: the whole state after some pass
- ``history.csv``: one row a block
- ``masks.safetensors``, ``summary.json``, and ``model.safetensors`` or the folder
  ``pretrained`` (models of transformers): the result

Each file is written under a temporary name and moved. A checkpoint and its history may
differ in age when a run is killed between the two: the history is never the younger one's
loss, since rows beyond the checkpoint are dropped and made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from icbs.choice.selection import Tabu
from icbs.config import PrunerConfig
from icbs.curvature.memory import Plan
from icbs.data.trees import tensors
from icbs.errors import ConfigError, RunFolderError
from icbs.history import read_history, write_history
from icbs.layers.layer import Layer
from icbs.result import Result
from icbs.saving.folder import save_pruned
from icbs.saving.masks import load_masks, pack, save_masks, unpack
from icbs.state import State
from icbs.workspace import Workspace
from problems.files import atomic, write_text

CHECKPOINT = "icbs-checkpoint-2"


class RunFolder:
    """Folder of one run.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def reserve(cls, path: str | Path) -> RunFolder:
        """Name a folder for a new run; nothing is written yet.

        Raises
        ------
        RunFolderError
            If something is there already.
        """
        target = Path(path)
        if target.exists() and not (target.is_dir() and _unborn(target)):
            raise RunFolderError(
                f"{target} exists already; choose another folder, or resume the run in it"
            )
        return cls(target)

    def create(
        self,
        work: Workspace,
        about: Mapping[str, Any],
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write manifest, given masks and configuration; the last makes the folder a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        initial = self.path / "initial.safetensors"
        initial.unlink(missing_ok=True)
        if masks is not None:
            save_masks(masks, initial)
        settings = yaml.safe_dump(work.config.model_dump(), sort_keys=False)
        manifest = {
            "versions": _versions(),
            "settings": _digest([settings.encode()]),
            **fingerprints(work),
            "plan": work.plan.recorded(),
            "about": dict(about),
        }
        self._write("manifest.json", json.dumps(manifest, indent=2))
        self._write("config.yaml", settings)

    def abandon(self) -> None:
        """Give up a run that never began: its folder is free again."""
        for name in ("config.yaml", "manifest.json", "initial.safetensors"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's is in it
            self.path.rmdir()

    def config(self) -> PrunerConfig:
        """Read the settings that the run was begun with.

        Raises
        ------
        RunFolderError
            If there is no run, or its configuration is damaged.
        """
        try:
            text = (self.path / "config.yaml").read_text(encoding="utf-8")
            settings = yaml.safe_load(text)
            if _digest([text.encode()]) != self._read_json("manifest.json").get("settings"):
                raise ConfigError("it is not what the manifest says the run was begun with")
            return PrunerConfig.of(**settings)
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} holds no run (no config.yaml)") from None
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise RunFolderError(f"{self.path / 'config.yaml'} is damaged: {error}") from error

    def about(self) -> dict[str, Any]:
        """Return the notes given to :meth:`create`."""
        self.config()
        return dict(self._read_json("manifest.json").get("about", {}))

    def plan(self) -> Plan | None:
        """Return how the run kept within its memory; None for a run of an older version."""
        try:
            return Plan(**self._read_json("manifest.json").get("plan", {}))
        except TypeError:
            return None

    def initial_masks(self) -> dict[str, Tensor] | None:
        """Masks that the run was begun with; None where ``initial`` made them.

        Raises
        ------
        RunFolderError
            If the file is damaged.
        """
        path = self.path / "initial.safetensors"
        return load_masks(path) if path.exists() else None

    def check(self, work: Workspace) -> None:
        """Refuse a model or samples other than the run's own.

        Raises
        ------
        RunFolderError
        """
        recorded = self._read_json("manifest.json")
        for left in self.path.glob(".*.tmp"):
            # By a process that was killed while it wrote.
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for what, found in fingerprints(work).items():
            if recorded.get(what) != found:
                raise RunFolderError(
                    f"the run in {self.path} was begun with other {what}; "
                    "resume it with those, or begin a new run"
                )

    def save(self, work: Workspace, state: State) -> None:
        """Write history and checkpoint, in this order."""
        write_history(state.history, self.path / "history.csv")
        arrays: dict[str, Tensor] = {"generator": state.generator.get_state()}
        for layer in work.layers:
            tabu = state.tabus[layer.name]
            arrays |= {
                f"pruned/{layer.name}": pack(layer.pruned),
                f"best/{layer.name}": pack(state.best[layer.name]),
                f"free/{layer.name}": pack(tabu.free),
                f"stamp/{layer.name}": tabu.stamp.cpu(),
            }
        facts = {
            "step": state.step,
            "seen": state.seen,
            "seconds": state.seconds,
            "initial_loss": state.initial_loss,
            "best_loss": state.best_loss,
            "rows": len(state.history),
            "caution": state.caution,
            "effort": state.effort,
            "started": state.started,
            "visits": {name: tabu.visits for name, tabu in state.tabus.items()},
        }
        header = {"format": CHECKPOINT, "state": json.dumps(facts)}
        with atomic(self.path / "checkpoint.safetensors") as temporary:
            save_file(arrays, temporary, header)

    def load(self, work: Workspace) -> State | None:
        """Restore the state of the last checkpoint into the model; None if there is none.

        Raises
        ------
        RunFolderError
            If the checkpoint or the history is damaged.
        """
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != CHECKPOINT:
                    raise RunFolderError(f"{path} is not a checkpoint of this version")
                facts = json.loads(header["state"])
                # Copies: a tensor mapped from the file would keep Windows from replacing it.
                arrays = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
                return self._restore(work, facts, arrays)
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            if isinstance(error, RunFolderError):
                raise
            raise RunFolderError(
                f"{path} is damaged ({error}); the run must be begun anew"
            ) from error

    def _restore(self, work: Workspace, facts: dict[str, Any], arrays: dict[str, Tensor]) -> State:
        history = read_history(self.path / "history.csv")
        if len(history) < facts["rows"]:
            raise RunFolderError(
                f"{self.path / 'history.csv'} has {len(history)} rows and the checkpoint "
                f"{facts['rows']}; the run must be begun anew"
            )
        tabus, best, masks = {}, {}, {}
        for layer in work.layers:

            def bits(kind: str, layer: Layer = layer) -> Tensor:
                mask = unpack(arrays[f"{kind}/{layer.name}"], (layer.size,))
                return mask.to(layer.dense.device)

            tabu = Tabu(bits("free"), work.config.tabu)
            tabu.stamp = arrays[f"stamp/{layer.name}"].to(layer.dense.device)
            tabu.visits = facts["visits"][layer.name]
            tabus[layer.name], best[layer.name] = tabu, bits("best")
            masks[layer.name] = bits("pruned")
        generator = torch.Generator()
        generator.set_state(arrays["generator"])
        for layer in work.layers:
            layer.set_mask(masks[layer.name])
        state = State(
            generator,
            tabus,
            step=facts["step"],
            seen=facts["seen"],
            initial_loss=facts["initial_loss"],
            best_loss=facts["best_loss"],
            best=best,
            caution=facts["caution"],
            effort=facts["effort"],
            started=facts.get("started", 0.0),
            history=history[: facts["rows"]],
        )
        state.set_clock(facts["seconds"])
        return state

    def finish(self, work: Workspace, result: Result) -> None:
        """Write the masks, the pruned model and a summary."""
        save_masks(result.masks, self.path / "masks.safetensors")
        save_pruned(work.model, self.path)
        self._write("summary.json", json.dumps(result.summary(), indent=2))

    def _write(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(f"{self.path / name} is damaged: {error}") from error


def fingerprints(work: Workspace) -> dict[str, str]:
    """Hashes of the dense model, and of the samples for gradients."""
    state = {f"{layer.name}.weight": layer.dense for layer in work.layers}
    for name, value in work.model.state_dict().items():
        plain = isinstance(value, Tensor) and type(value.data) is Tensor
        if plain and not value.is_meta and not value.is_quantized:
            state.setdefault(name, value)
    samples = [*tensors(work.pool.inputs), work.pool.targets]
    return {
        "model": _digest(part for name in state for part in (name.encode(), *_bytes(state[name]))),
        "samples": _digest(part for tensor in samples for part in _bytes(tensor)),
    }


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """Dtype, shape and contents, which are not copied."""
    yield f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    yield tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _unborn(folder: Path) -> bool:
    """Whether a folder is empty, but for what a run leaves that was killed at its birth."""
    return all(
        file.name in ("initial.safetensors", "manifest.json") or file.name.endswith(".tmp")
        for file in folder.iterdir()
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("icbs-pruning", "torch", "numpy", "numba")}
