"""Pruned models on disk, in the format of their own library."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from icbs.downloads.optional import without_bars
from icbs.model.adapters import base_state, without_adapters
from problems.files import atomic, finish_files, private_folder
from problems.warn import warn

PRETRAINED = "pretrained"
PLAIN = "model.safetensors"


def save_pruned(model: nn.Module, folder: Path) -> Path:
    """Write a model into a run folder, atomically.

    Parameters
    ----------
    model : nn.Module
        A model with a method ``save_pretrained`` (transformers) is written to ``pretrained/``,
        which ``from_pretrained`` loads; any other to ``model.safetensors``. Adapters are left
        out, and base layers have their names without adapters.
    folder : Path

    Returns
    -------
    Path
        The file or folder written.
    """
    base = base_state(model)
    if not hasattr(model, "save_pretrained"):
        with atomic(folder / PLAIN) as temporary:
            if base is None:
                save_plain(model, temporary)
            else:
                _save_copies(base, temporary)
        return folder / PLAIN
    target = folder / PRETRAINED
    more = {} if base is None else {"state_dict": base}
    with private_folder(folder) as private:
        partial = private / PRETRAINED
        with without_bars(), without_adapters(model):
            # With the same names as the masks, not those of older releases.
            model.save_pretrained(  # type: ignore[operator]
                partial, save_original_format=False, **more
            )
        finish_files(private)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    return target


def save_plain(model: nn.Module, path: Path) -> None:
    """Write the state dict of any module to a safetensors file."""
    state = model.state_dict()
    try:
        if all(isinstance(value, Tensor) for value in state.values()):
            save_model(model, str(path))
            return
    except RuntimeError:  # views of one vector, transposed buffers
        pass
    _save_copies(state, path)


def _save_copies(state: Mapping[str, Any], path: Path) -> None:
    """Write copies of the tensors in a state dict, which may overlap in memory."""
    skipped = [name for name, v in state.items() if not isinstance(v, Tensor) or v.is_meta]
    if skipped:
        warn(
            f"{', '.join(skipped)} of the model's state have no values and are not saved; load "
            "the file with strict=False",
        )
    copies = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in state.items()
        if name not in skipped
    }
    save_file(copies, path)
