"""Files of kept groups: the dimensions of a model and the groups that a run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icbs.export.safetensors_files import open_tensors, write_tensors
from icbs.structure.dimension import ROLES, Dimension, Slice

GROUPS = "groups.safetensors"
"""Name of the file in a run folder and in the folder of a cut model."""
FORMAT = "icbs-groups-1"


def save_kept(
    folder: str | Path, dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]
) -> Path:
    """Write dimensions and their kept groups to ``groups.safetensors`` in a folder, atomically.

    Parameters
    ----------
    folder : path
    dimensions : sequence of Dimension
    kept : mapping of names to bool tensors, shape (groups,)
        Dimensions without an entry are kept whole.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    described: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for number, dimension in enumerate(dimensions):
        entry: dict[str, Any] = {
            "name": dimension.name,
            "kind": dimension.kind,
            "groups": dimension.groups,
            "floor": dimension.floor,
        }
        for role in ROLES:
            slices: tuple[Slice, ...] = getattr(dimension, role)
            entry[role] = [part.module for part in slices]
            for place, part in enumerate(slices):
                tensors[f"{number}.{role}.{place}"] = part.index.cpu().to(torch.int64).contiguous()
        whole = torch.ones(dimension.groups, dtype=torch.bool)
        own = kept.get(dimension.name, whole)
        tensors[f"{number}.kept"] = own.detach().cpu().bool().contiguous().clone()
        described.append(entry)
    path = Path(folder) / GROUPS
    write_tensors(path, FORMAT, {"dimensions": described}, tensors)
    return path


def load_kept(folder: str | Path) -> tuple[list[Dimension], dict[str, Tensor]]:
    """Read what :func:`save_kept` wrote.

    Returns
    -------
    dimensions : list of Dimension
    kept : dict of names to bool tensors, shape (groups,)

    Raises
    ------
    RunFolderError
        If the file is missing, damaged or of another format.
    """
    path = Path(folder) / GROUPS
    dimensions, kept = [], {}
    with open_tensors(path, "file of kept groups", FORMAT) as (tensors, facts):
        for number, entry in enumerate(facts["dimensions"]):
            readers, writers, between = (
                tuple(
                    Slice(module, tensors[f"{number}.{role}.{place}"])
                    for place, module in enumerate(entry[role])
                )
                for role in ROLES
            )
            dimension = Dimension(
                entry["name"],
                entry["kind"],
                entry["groups"],
                readers,
                writers,
                between,
                entry["floor"],
            )
            own = tensors[f"{number}.kept"]
            if own.shape != (dimension.groups,):
                raise ValueError(
                    f"{dimension.name} has {dimension.groups} groups, {own.numel()} given"
                )
            dimensions.append(dimension)
            kept[dimension.name] = own
    return dimensions, kept
