"""Writing the safetensors files of this project: deterministic, with a digest of the content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from icbs.errors import RunFolderError
from icbs.export.digests import tensors_digest
from problems.files import atomic

KEY = "icbs"
"""Key of the header under which all facts stand, as one JSON object: safetensors writes several
keys in an order that changes from call to call."""


def write(
    path: str | Path, form: str, facts: Mapping[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write tensors and facts about them, atomically; equal content makes equal bytes.

    Parameters
    ----------
    path : path
    form : str
        Name and version of the format.
    facts : mapping
        What JSON can hold.
    tensors : dict of str to Tensor
        On the CPU, contiguous.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    content = {"format": form, **facts}
    content["digest"] = tensors_digest(content, tensors)
    header = {KEY: json.dumps(content, sort_keys=True)}
    try:
        with atomic(path) as temporary:
            save_file(tensors, temporary, header)
    except (OSError, SafetensorError) as error:
        raise cant_write(path, error) from error


def cant_write(path: str | Path, error: Exception) -> RunFolderError:
    """Say what could not be written, why, and what to do."""
    return RunFolderError(
        f"{path} can't be written ({error}); free space there, make the folder writable, or "
        "name another"
    )
