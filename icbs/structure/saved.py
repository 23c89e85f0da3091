"""Cut models on disk: weights, and the groups to remove from a dense model before loading."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

from icbs.errors import RunFolderError
from icbs.export.pretrained import PLAIN, PRETRAINED, save_plain, save_pruned
from icbs.structure.configuration import fits, refusal
from icbs.structure.cutting import cut
from icbs.structure.dimension import Dimension
from icbs.structure.kept import load_kept, save_kept
from problems.files import atomic


def save_cut(
    model: nn.Module,
    dimensions: Sequence[Dimension],
    kept: Mapping[str, Tensor],
    folder: str | Path,
) -> Path:
    """Write a cut model to a folder.

    ``groups.safetensors`` has the kept groups. The weights are in ``pretrained/``, which
    ``from_pretrained`` loads too, if the model is of transformers and its configuration holds the
    widths, and in ``model.safetensors`` otherwise.

    Parameters
    ----------
    model : nn.Module
        As :func:`icbs.structure.cut` returns it.
    dimensions, kept
        As :func:`icbs.structure.cut` got them.
    folder : path
        Made if it is missing.

    Returns
    -------
    Path
        The file or folder of the weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_kept(folder, dimensions, kept)
    if hasattr(model, "save_pretrained") and refusal(model) is None and fits(model):
        return save_pruned(model, folder)
    with atomic(folder / PLAIN) as temporary:
        save_plain(model, temporary)
    return folder / PLAIN


def load_cut(model: nn.Module, folder: str | Path) -> nn.Module:
    """Cut a dense model as a saved one was, and load its weights.

    Parameters
    ----------
    model : nn.Module
        Of the architecture and widths before the cut; its weights don't matter. Not changed.
    folder : path
        As :func:`save_cut` wrote it.

    Returns
    -------
    nn.Module
        The cut model, in evaluation mode.

    Raises
    ------
    RunFolderError
        If a file is missing or damaged, or the weights don't fit the model.
    LayerError
        If the model doesn't have the layers that were cut.
    """
    dimensions, kept = load_kept(folder)
    small = cut(copy.deepcopy(model).eval(), dimensions, kept, in_place=True)
    path = Path(folder) / PRETRAINED
    if path.is_dir() and (loader := getattr(type(small), "from_pretrained", None)) is not None:
        loaded: nn.Module = loader(path)
        return loaded.eval()
    path = Path(folder) / PLAIN
    try:
        _add_biases(small, path)
        load_model(small, str(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunFolderError(f"{path} does not fit the model: {error!s:.1000}") from error
    return small


def _add_biases(model: nn.Module, path: Path) -> None:
    """Give the layers without a bias one where a file has it, such as those that FLAP adds."""
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118, not a mapping
            owner, _, entry = name.rpartition(".")
            if entry != "bias" or owner not in (modules := dict(model.named_modules())):
                continue
            module: Any = modules[owner]
            if getattr(module, "bias", 0) is None:
                module.bias = nn.Parameter(file.get_tensor(name).to(module.weight))
