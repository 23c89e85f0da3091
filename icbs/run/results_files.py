"""Result files in a run folder: masks, pruned model and summary."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from icbs.errors import RunFolderError
from icbs.export.digests import file_digest
from icbs.export.headers import Summary
from icbs.export.masks import save_masks
from icbs.export.pretrained import PLAIN, PRETRAINED, save_pruned
from icbs.export.safetensors_files import read_text, write_error
from icbs.run.context import RunContext
from icbs.run.result import Result
from icbs.structure.kept import save_kept
from problems.files import write_text

MASKS, SUMMARY = "masks.safetensors", "summary.json"


def write_masks(folder: Path, result: Result) -> None:
    """Write the masks.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    save_masks(result.masks, folder / MASKS)


def write_groups(folder: Path, context: RunContext, result: Result) -> None:
    """Write the kept groups of the dimensions that can be cut, for ``icbs cut``.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    sets = () if context.grouping is None else context.grouping.sets
    dimensions = [own.dimension for own in sets if own.dimension is not None]
    if dimensions:
        save_kept(folder, dimensions, result.groups)


def write_model(folder: Path, model: nn.Module, result: Result) -> None:
    """Write the pruned model, and the summary with digests of the model's files.

    Raises
    ------
    RunFolderError
        If a file can't be written.
    """
    try:
        saved = save_pruned(model, folder)
        files = [path for path in sorted(saved.rglob("*")) if path.is_file()] or [saved]
        digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
        text = json.dumps(result.summary() | {"files": digests}, indent=2)
        write_text(folder / SUMMARY, text)
    except (OSError, SafetensorError) as error:
        raise write_error(folder, error) from error


def model_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a run's pruned model, after checking their digests.

    Files of earlier releases, without digests, are not checked.

    Raises
    ------
    RunFolderError
        If the run is not finished, or a file has been changed.
    """
    files = sorted((folder / PRETRAINED).glob("*.safetensors")) or [folder / PLAIN]
    if not (files[0].is_file() and (folder / SUMMARY).is_file()):
        raise RunFolderError(f"{folder} has no pruned model; finish the run with 'icbs resume'")
    recorded = read_summary(folder / SUMMARY).files
    for path in files:
        name = path.relative_to(folder).as_posix()
        if recorded is not None and file_digest(path) != recorded.get(name):
            raise RunFolderError(
                f"{path} has been changed after the run; resume the run to write it again, or use "
                "icbs.save_compressed for a model that you changed"
            )
    return files


def read_summary(path: Path) -> Summary:
    """Read the summary of a finished run.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    try:
        return Summary.from_json(read_text(path))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error!s:.1000}; resume the run to write it again"
        ) from error
