"""Pruned models on disk, in the layout that their own library loads."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from icbs.fetching.optional import without_bars
from problems.files import atomic, private_folder, settle

PRETRAINED = "pretrained"
PLAIN = "model.safetensors"


def save_pruned(model: nn.Module, folder: Path) -> Path:
    """Write a model into a run folder, whole or not at all.

    Parameters
    ----------
    model : nn.Module
        One with a method ``save_pretrained`` (transformers) goes into ``pretrained/``,
        which ``from_pretrained`` loads; any other into ``model.safetensors``.
    folder : Path

    Returns
    -------
    Path
        What was written.
    """
    if not hasattr(model, "save_pretrained"):
        with atomic(folder / PLAIN) as temporary:
            _save_plain(model, temporary)
        return folder / PLAIN
    target = folder / PRETRAINED
    with private_folder(folder) as private:
        partial = private / PRETRAINED
        with without_bars():
            # Under the names that the masks have, not those of older releases.
            model.save_pretrained(partial, save_original_format=False)  # type: ignore[operator]
        settle(private)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    return target


def _save_plain(model: nn.Module, path: Path) -> None:
    """Write the state of any module; tensors that share memory by parts are copied apart."""
    state = model.state_dict()
    try:
        if all(isinstance(value, Tensor) for value in state.values()):
            save_model(model, str(path))
            return
    except RuntimeError:  # views of one vector, transposed buffers
        pass
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        warnings.warn(
            f"{', '.join(others)} of the model's state hold no tensors and are not saved; load "
            "the file with strict=False",
            stacklevel=2,
        )
    apart = {n: t.detach().cpu().contiguous().clone() for n, t in state.items() if n not in others}
    save_file(apart, path)
