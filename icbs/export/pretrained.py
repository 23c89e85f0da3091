"""Pruned models on disk, in the layout that their own library loads."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from icbs.downloads.optional import without_bars
from icbs.model.adapters import base_state, without_adapters
from problems.files import atomic, finish_files, private_folder

PRETRAINED = "pretrained"
PLAIN = "model.safetensors"


def save_pruned(model: nn.Module, folder: Path) -> Path:
    """Write a model into a run folder, whole or not at all.

    Parameters
    ----------
    model : nn.Module
        One with a method ``save_pretrained`` (transformers) goes into ``pretrained/``,
        which ``from_pretrained`` loads; any other into ``model.safetensors``. Of a model with
        adapters it is the base model alone, under its own names.
    folder : Path

    Returns
    -------
    Path
        What was written.
    """
    base = base_state(model)
    if not hasattr(model, "save_pretrained"):
        with atomic(folder / PLAIN) as temporary:
            if base is None:
                _save_plain(model, temporary)
            else:
                _save_apart(base, temporary)
        return folder / PLAIN
    target = folder / PRETRAINED
    more = {} if base is None else {"state_dict": base}
    with private_folder(folder) as private:
        partial = private / PRETRAINED
        with without_bars(), without_adapters(model):
            # Under the names that the masks have, not those of older releases.
            model.save_pretrained(  # type: ignore[operator]
                partial, save_original_format=False, **more
            )
        finish_files(private)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    return target


def _save_plain(model: nn.Module, path: Path) -> None:
    """Write the state of any module."""
    state = model.state_dict()
    try:
        if all(isinstance(value, Tensor) for value in state.values()):
            save_model(model, str(path))
            return
    except RuntimeError:  # views of one vector, transposed buffers
        pass
    _save_apart(state, path)


def _save_apart(state: Mapping[str, Any], path: Path) -> None:
    """Write a state of which tensors share memory by parts: each is copied."""
    others = [name for name, v in state.items() if not isinstance(v, Tensor) or v.is_meta]
    if others:
        warnings.warn(
            f"{', '.join(others)} of the model's state hold no values and are not saved; load "
            "the file with strict=False",
            stacklevel=3,
        )
    apart = {n: t.detach().cpu().contiguous().clone() for n, t in state.items() if n not in others}
    save_file(apart, path)
