"""Pruned models on disk, in the layout that their own library loads."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_model
from torch import nn

from icbs.fetching.optional import without_bars
from problems.files import atomic

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
            save_model(model, str(temporary))
        return folder / PLAIN
    target, partial = folder / PRETRAINED, folder / f".{PRETRAINED}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    with without_bars():
        # Under the names that the masks have, not those of older releases.
        model.save_pretrained(partial, save_original_format=False)  # type: ignore[operator]
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)
    return target
