"""A run's figures as tables and lines for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from icbs.formatting import counted, duration, label, metrics, significant, spell
from icbs.report.layers import LayerFigures, by_depth, by_kind
from icbs.report.overview import Overview
from icbs.report.screen import visible

LEGEND = (
    "kept: blocks whose move was kept, of all; moved: weights that changed sides in them; "
    "predicted, actual: their change of the loss; ms: median time of the solver for a block"
)
FAILURES = 5
"""Kinds of solver failure that are named."""
FEW = 12
"""Layers up to which each has a line of its own."""


def outcome_table(stages: Mapping[str, Mapping[str, float]], title: str = "") -> Table:
    """Set the dense model, the start and the pruned model side by side, a column a figure.

    Parameters
    ----------
    stages : mapping
        Name of a stage → test figures; see :mod:`icbs.formatting`.
    title : str
    """
    names: dict[str, None] = {}
    for figures in stages.values():
        names |= dict.fromkeys(metrics(figures))
    table = Table(title=plain(title) if title else None, box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("")
    spelled = {name: [spell(name, figures) for figures in stages.values()] for name in names}
    errors = any("±" in value for column in spelled.values() for value in column)
    for name in names:
        table.add_column(plain(f"test {label(name)}"), justify="right")
    for i, stage in enumerate(stages):
        table.add_row(plain(stage), *(spelled[name][i] for name in names))
    if errors:
        table.caption = "± one standard error over the test samples"
    return table


def facts(run: Overview) -> list[str]:
    """Say in a few lines what was run, how far it came, and what is left of the model."""
    settings = run.settings
    named = [str(run.options[name]) for name in ("model", "text") if name in run.options]
    what = f" ({', '.join(named)})" if named else ""
    # A resumed run may have been given more passes than its settings say.
    wanted = max(run.passes, settings["passes"])
    done = (
        counted(run.passes, "pass")
        if run.finished
        else f"{run.passes} of {counted(wanted, 'pass')}"
    )
    state = "finished" if run.finished else f"not finished: {run.how_to_resume} goes on"
    lines = [
        f"{run.task}{what}: density {settings['density']:g}, solver {settings['solver']}, "
        f"start {settings['initial']}, seed {settings['seed']}",
        f"{done} in {duration(run.seconds)}, {state}",
    ]
    if math.isfinite(run.initial_loss):
        lines.append(
            f"held-out training loss {significant(run.initial_loss)} at the start, "
            f"{significant(run.loss)} now"
        )
    rows = run.history
    if rows:
        kept = sum(row.accepted for row in rows)
        judged = len(run.curve.judged)
        unit = f", judged {judged} times as whole passes" if run.by_pass else ""
        lines.append(f"{counted(len(rows), 'block')}, {kept / len(rows):.0%} kept{unit}")
        if failures := Counter(row.failure for row in rows if row.failure):
            lines.append(f"{counted(failures.total(), 'block')} without an answer:")
            lines += [f"  {n} × {failure}" for failure, n in failures.most_common(FAILURES)]
    if run.density:
        lines.append(run.density)
    return lines


def layer_table(run: Overview, *, every: bool = False) -> Table | None:
    """Tabulate the layers: each where they are few, else groups by kind and by depth.

    Parameters
    ----------
    run : Overview
    every : bool
        One line for each layer, however many there are.

    Returns
    -------
    Table or None
        None before the first block.
    """
    if not run.layers:
        return None
    if every or len(run.layers) <= FEW:
        return _table([run.layers], run)
    kinds, depths = by_kind(run.layers), by_depth(run.layers)
    sections = [found for found, show in ((kinds, len(kinds) <= FEW), (depths, True)) if show]
    return _table(sections, run, common_prefix([layer.name for layer in sections[0]]))


def extremes(run: Overview, count: int = 3) -> list[str]:
    """Name the layers whose kept moves brought most and least, where there are many."""
    if len(run.layers) <= FEW:
        return []
    ranked = sorted(run.layers, key=lambda layer: layer.gain, reverse=True)
    lines = []
    for words, chosen in (("largest", ranked[:count]), ("smallest", ranked[-count:])):
        names = ", ".join(f"{layer.name} ({-layer.gain:+.4f})" for layer in chosen)
        lines.append(f"{words} change of the loss: {names}")
    return lines


def columns(layers: Sequence[LayerFigures], run: Overview) -> dict[str, list[str]]:
    """Return the columns of a table of layers, as text; see :data:`LEGEND`."""
    found = {"layer": [layer.name for layer in layers]}
    if any(layer.layers > 1 for layer in layers):
        found["layers"] = [str(layer.layers) for layer in layers]
    if run.sizes:
        found["weights"] = [f"{layer.size:,}" for layer in layers]
        found["density"] = [_or_dash(layer.density, "{:.4f}") for layer in layers]
    found["kept"] = [f"{layer.accepted:,}/{layer.blocks:,}" for layer in layers]
    found["moved"] = [f"{layer.moved:,}" for layer in layers]
    found["predicted"] = [f"{layer.predicted:.4f}" for layer in layers]
    if not run.by_pass:
        found["actual"] = [_or_dash(layer.actual, "{:.4f}") for layer in layers]
    found["ms"] = [f"{layer.milliseconds:.1f}" for layer in layers]
    return found


def _table(sections: Sequence[Sequence[LayerFigures]], run: Overview, title: str = "") -> Table:
    """Lay out sections of layers; the title is what the names of the first begin with."""
    table = Table(
        title=plain(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for i, layers in enumerate(sections):
        found = columns(layers, run)
        if i == 0:
            table.add_column("layer", overflow="fold", min_width=14)
            for name in list(found)[1:]:
                table.add_column(name, justify="right", no_wrap=True)
        for name, *rest in _rows(found):
            table.add_row(plain(name.removeprefix(title)), *map(Text, rest))
        table.add_section()
    return table


def common_prefix(names: Sequence[str]) -> str:
    """Return what several dotted names begin with, up to and with a dot."""
    parts = [name.split(".")[:-1] for name in names] if len(names) > 1 else [[]]
    shared = [p[0] + "." for p in zip(*parts, strict=False) if len(set(p)) == 1]
    whole = "".join(shared)
    return whole if all(name.startswith(whole) for name in names) else ""


def plain(text: str) -> Text:
    """Text that shows every control character; rich's own would drop some."""
    return Text(visible(text))


def _rows(found: Mapping[str, list[str]]) -> Iterable[tuple[str, ...]]:
    return zip(*found.values(), strict=True)


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)
