"""``icbs compress`` and ``icbs expand``: compressed files of pruned models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.recovery import FOLDER

if TYPE_CHECKING:
    from torch import Tensor


@plain_errors
def compress(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="File to write.", show_default="compressed.safetensors in RUN"),
    ] = None,
    recovered: Annotated[
        bool, typer.Option("--recovered", help="Take the model of 'icbs recover'.")
    ] = False,
) -> None:
    """Write the pruned model of a run as a small file of mask bits and kept values."""
    from icbs.export.compressed import save_compressed
    from icbs.export.masks import load_masks
    from icbs.formatting import byte_size
    from icbs.report.screen import Screen
    from icbs.run.run_folder import RunFolder

    RunFolder(run).config()
    if recovered:
        run = run / FOLDER
    state = read_model_state(run)
    masks = load_masks(run / "masks.safetensors")
    target = file or run / "compressed.safetensors"
    size = save_compressed(state, masks, target)
    whole = max(1, sum(tensor.nbytes for tensor in state.values()))
    kept = sum(int(mask.sum()) for mask in masks.values())
    share = kept / max(1, sum(mask.numel() for mask in masks.values()))
    Screen(soft_wrap=True).print(
        f"{target}: {byte_size(size)}, {size / whole:.0%} of the {byte_size(whole)} of the whole "
        f"model; density of the masks {share:.4f}",
        highlight=False,
    )


@plain_errors
def expand(
    file: Annotated[Path, typer.Argument(help="File written by 'icbs compress'.")],
    output: Annotated[Path, typer.Argument(dir_okay=False, help="Safetensors file to write.")],
) -> None:
    """Restore the whole model from a compressed file, bit for bit."""
    from safetensors.torch import save_file

    from icbs.export.compressed import load_compressed
    from icbs.report.screen import Screen
    from problems.files import atomic

    state, masks = load_compressed(file)
    once: dict[int, str] = {}
    for name, tensor in state.items():
        # Tied weights are one tensor; libraries tie them again on loading.
        once.setdefault(id(tensor), name)
    with atomic(output) as temporary:
        save_file({name: state[name] for name in once.values()}, temporary, {"format": "pt"})
    Screen(soft_wrap=True).print(
        f"model with {len(masks)} masked layers written to {output}", highlight=False
    )


def read_model_state(run: Path) -> dict[str, Tensor]:
    """Read the tensors of a run's pruned model.

    Raises
    ------
    RunFolderError
        If the run is not finished, or its model is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from icbs.errors import RunFolderError
    from icbs.run.results_files import model_files
    from problems.files import regular

    files = model_files(run)
    try:
        parts = [load_file(regular(file)) for file in files]
    except (OSError, SafetensorError, ValueError, LookupError, RuntimeError, TypeError) as error:
        raise RunFolderError(f"the model in {run} is damaged: {error}") from error
    return {name: tensor for part in parts for name, tensor in part.items()}
