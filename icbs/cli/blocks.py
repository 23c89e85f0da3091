"""``icbs blocks``: list the block problems that a run has saved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors

if TYPE_CHECKING:
    from rich.table import Table


@plain_errors
def blocks(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of problem files (.npz).")],
    layer: Annotated[
        str | None,
        typer.Option(help="Only blocks of this layer, or of layers that match a pattern (*)."),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--pass", help="Only blocks of this pass (from 0), or of a range: 0-9."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list instead of a table.")
    ] = False,
) -> None:
    """List the block problems that a run has saved (icbs prune --save-blocks)."""
    from icbs.formatting import byte_size, counted
    from icbs.report.screen import Screen
    from problems.instance import read_about

    passes = None if step is None else _passes(step)
    folder = blocks_folder(run)
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.npz")):
        own: dict[str, Any] = {"file": path.name, "size": path.stat().st_size}
        found.append(own | read_about(path) | own)  # the notes can't replace these
    chosen = [
        block
        for block in found
        if (passes is None or (isinstance(block.get("step"), int) and block["step"] in passes))
        and (layer is None or _matches(str(block.get("layer", "")), layer))
    ]
    if as_json:
        typer.echo(json.dumps(chosen))
        return
    console = Screen()
    if chosen:
        console.print(_table(chosen))
    size = byte_size(sum(block["size"] for block in chosen))
    of = f" of {len(found)}" if len(chosen) < len(found) else ""
    kinds = ", ".join(sorted({_shown(block.get("curvature")) for block in chosen}))
    curvature = f"curvature {kinds}; " if chosen else ""
    console.print(
        f"{counted(len(chosen), 'block')}{of}, {size} in {folder}; {curvature}energies relative "
        "to the start",
        highlight=False,
        soft_wrap=True,
    )


def blocks_folder(run: Path) -> Path:
    """Return the folder with the blocks of a run, or the given folder if it has problem files."""
    from icbs.errors import RunFolderError
    from icbs.run.locked_folder import CONFIG
    from icbs.run.saved_blocks import FOLDER

    for folder in (run / FOLDER, run):
        if any(folder.glob("*.npz")):
            return folder
    if (run / CONFIG).exists():
        raise RunFolderError(
            f"{run} has no saved blocks yet; start a run with icbs prune --save-blocks N"
        )
    raise RunFolderError(f"{run} has no run and no problem file (.npz)")


def _passes(text: str) -> range:
    """Read ``3`` or ``0-9``, the last included."""
    from icbs.errors import ConfigError

    found = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", text)
    if found is None:
        raise ConfigError(f"--pass is {text!r}; give one, such as 3, or a range, 0-9")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def _matches(layers: str, pattern: str) -> bool:
    """Whether one of a block's layers matches the pattern."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for name in layers.split(" + "))


def _table(found: list[dict[str, Any]]) -> Table:
    from icbs.formatting import byte_size
    from icbs.report.screen import plain, plain_table
    from icbs.report.tables import common_prefix

    layers = [_layers(block) for block in found]
    shared = common_prefix(layers)
    table = plain_table(f"layers of {shared[:-1]}" if shared else "")
    table.add_column("block", no_wrap=True)
    table.add_column("layer", overflow="fold", min_width=6)
    mixed = len({_shown(block.get("curvature")) for block in found}) > 1
    grouped = any(block.get("groups", 1) != 1 for block in found)
    optional = [name for name, shown in (("groups", grouped), ("curvature", mixed)) if shown]
    names = ["step", "n", "k", *optional, "energy"]
    for name in names:
        title = "pass" if name == "step" else name
        table.add_column(title, justify="left" if name == "curvature" else "right", no_wrap=True)
    table.add_column("accepted", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for block, layer in zip(found, layers, strict=True):
        name = block["file"].removesuffix(".npz")
        values = [_shown(block.get(name)) for name in names]
        cells = [
            name,
            layer.removeprefix(shared),
            *values,
            _accepted(block),
            byte_size(block["size"]),
        ]
        table.add_row(*map(plain, cells))
    return table


def _layers(block: dict[str, Any]) -> str:
    """Return the names of a block's layers; of many, the first and the last."""
    names = _shown(block.get("layer")).split(" + ")
    if len(names) > 3:
        return f"{names[0]} … {names[-1]} ({len(names)} layers)"
    return " + ".join(names)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _accepted(block: dict[str, Any]) -> str:
    """Return whether the solution was accepted, if there is one that moves weights."""
    if "accepted" not in block:
        return "-"
    if block.get("failure"):
        return "failed"
    if not block.get("moved"):
        return "no move"
    return "yes" if block["accepted"] else "no"
