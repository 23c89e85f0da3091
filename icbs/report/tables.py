"""Tables and lines about a run for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from icbs.formatting import counted, duration, label, metrics, significant, spell
from icbs.recovery.result import OTHER_SAMPLES
from icbs.report.decisions import Decision
from icbs.report.layers import LayerFigures, by_depth, by_kind
from icbs.report.overview import Overview
from icbs.report.screen import plain, plain_table
from icbs.run.proof import Proof
from icbs.run.run_folder import at_checkpoint

MAX_FAILURES = 5
"""Number of different solver failures that are listed."""
MAX_ROWS = 12
"""Number of layers up to which each layer has its own row."""
MAX_KINDS = 8
"""Number of kinds of layers that have a row, where there are more layers."""


def legend(run: Overview) -> str:
    """Return the explanation of the columns of a run's table of layers."""
    proved = "proved: blocks solved to proven optimality; " if _has_proofs(run) else ""
    return (
        "kept: accepted blocks of all; moved: weights pruned or restored in accepted blocks; "
        f"predicted, actual: change of the loss by them; {proved}"
        "ms: median time of the solver per block"
    )


def _has_proofs(run: Overview) -> bool:
    return any(layer.proved for layer in run.layers)


def outcome_table(stages: Mapping[str, Mapping[str, float]], title: str = "") -> Table:
    """Return a table of test figures with a row per stage and a column per figure.

    Parameters
    ----------
    stages : mapping
        Name of a stage (dense, start, pruned) → test figures.
    title : str
    """
    names: dict[str, None] = {}
    for figures in stages.values():
        names |= dict.fromkeys(metrics(figures))
    table = plain_table(title)
    table.add_column("test figures")
    spelled = {name: [spell(name, figures) for figures in stages.values()] for name in names}
    errors = any("±" in value for column in spelled.values() for value in column)
    for name in names:
        table.add_column(plain(label(name)), justify="right")
    for i, stage in enumerate(stages):
        table.add_row(plain(stage), *(spelled[name][i] for name in names))
    if errors:
        table.caption = plain("± one standard error over the test samples")
    return table


def _wanted(settings: Mapping[str, Any]) -> str:
    """Describe how much a run was to keep."""
    groups = ", ".join(settings.get("groups") or ())
    if budget := settings.get("budget"):
        ((name, share),) = budget.items()
        return f"{groups}, budget {name}={share:g}"
    return f"{groups}{', ' if groups else ''}density {settings['density']:g}"


def _state(run: Overview) -> str:
    if run.finished:
        return "finished"
    if run.running:
        return "running"
    state = "not finished" if run.running is None else "interrupted"
    kept = at_checkpoint(run.checkpoint, run.passes)
    return f"{state}; {kept}; resume it with {run.how_to_resume}"


def facts(run: Overview) -> list[str]:
    """Return lines on task, settings, progress, losses, failures and density of a run."""
    settings = run.settings
    named = [str(run.options[name]) for name in ("model", "text") if name in run.options]
    what = f" ({', '.join(named)})" if named else ""
    # A run may have been resumed with more passes than in its settings.
    wanted = max(run.passes, settings["passes"])
    done = (
        counted(run.passes, "pass")
        if run.finished
        else f"{run.passes} of {counted(wanted, 'pass')}"
    )
    state = _state(run)
    lines = [
        f"{run.task}{what}: {_wanted(settings)}, solver {settings['solver']}, "
        f"start {run.start}, seed {settings['seed']}",
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
        decided = counted(len(run.curve.decisions), "decision")
        unit = f", {decided} on whole passes" if run.by_pass else ""
        lines.append(f"{counted(len(rows), 'block')}, {kept / len(rows):.0%} kept{unit}")
        lines += predictions(run.curve.decisions)
        if proof := Proof.of(rows):
            lines.append(str(proof))
        if failures := Counter(row.failure for row in rows if row.failure):
            lines.append(f"{counted(failures.total(), 'solver failure')}:")
            lines += [f"  {n} × {failure}" for failure, n in failures.most_common(MAX_FAILURES)]
    lines += costs(run)
    if run.density:
        lines.append(run.density)
    if run.recovery:
        lines += [f"recovery: {line}" for line in (*run.recovery, OTHER_SAMPLES)]
    return lines


def predictions(decided: Sequence[Decision]) -> list[str]:
    """Return a line on the predicted and the measured change of the loss of accepted moves.

    Both are summed over what was judged together, a block or a pass, and then over all of these
    whose change was measured.
    """
    kept = [d for d in decided if d.accepted and math.isfinite(d.predicted + d.actual)]
    if not kept:
        return []
    predicted = math.fsum(d.predicted for d in kept)
    actual = math.fsum(d.actual for d in kept)
    share = f" ({actual / predicted:.0%} of it)" if predicted < 0 else ""
    return [
        f"change of the loss by kept moves: {predicted:+.4f} predicted, {actual:+.4f} actual{share}"
    ]


def costs(run: Overview) -> list[str]:
    """Return lines on the time that each part of a run took, and on the solver's per block."""
    rows = [row for row in run.history if not row.failure]
    if not any(run.costs.values()) or not rows:
        return []
    parts = {"start": run.start_seconds, **run.costs}
    parts["the rest"] = max(0.0, run.seconds - math.fsum(parts.values()))
    whole = math.fsum(parts.values())
    shown = ", ".join(f"{name} {_seconds(s)} ({s / whole:.0%})" for name, s in parts.items())
    spent = run.costs.get("solver", 0.0)
    line = f"solver: {_seconds(spent / len(rows))} a block"
    if total := sum(row.evaluations or 0 for row in rows):
        line += f", {counted(total, 'evaluation')} in all, {_seconds(spent / total)} each"
    return [f"time: {shown}", line]


def _seconds(seconds: float) -> str:
    """Format a time that may be short."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"


def layer_table(run: Overview, *, every: bool = False) -> Table | None:
    """Return a table of the layers, or, for many layers, of groups by kind and by depth.

    Parameters
    ----------
    run : Overview
    every : bool
        One row per layer, whatever their number.

    Returns
    -------
    Table or None
        None before the first block.
    """
    if not run.layers:
        return None
    if every or len(run.layers) <= MAX_ROWS:
        return _table(run.layers, run)
    kinds = by_kind(run.layers)
    ranked = sorted(kinds, key=lambda kind: kind.gain, reverse=True)[:MAX_KINDS]
    table = _table([kind for kind in kinds if kind in ranked], run)
    if len(kinds) > len(ranked):
        table.caption = plain(f"and {counted(len(kinds) - len(ranked), 'more kind')} of layers")
    return table


def extremes(run: Overview, count: int = 3) -> list[str]:
    """Return lines on groups of blocks, and on the layers with most and least change of the loss.

    Empty for few layers, whose table shows all.
    """
    if len(run.layers) <= MAX_ROWS or not run.history:
        return []
    changed = [layer for layer in run.layers if layer.moved]
    ranked = sorted(changed, key=lambda layer: layer.gain, reverse=True)
    lines = []
    depths = by_depth(run.layers)
    if len(depths) > 1:
        listed = ", ".join(f"{depth.name} {_change(depth)}" for depth in depths)
        lines.append(f"change of the loss by depth: {listed}")
    for words, chosen in (("best", ranked[:count]), ("worst", ranked[count:][-count:][::-1])):
        if chosen:
            names = ", ".join(f"{layer.name} ({_change(layer)})" for layer in chosen)
            lines.append(f"{words} layers: {names}")
    if unchanged := len(run.layers) - len(changed):
        lines.append(f"no kept move in {counted(unchanged, 'layer')} of {len(run.layers)}")
    return lines


def _change(layer: LayerFigures) -> str:
    return f"{-layer.gain:+.4f}"


def columns(layers: Sequence[LayerFigures], run: Overview) -> dict[str, list[str]]:
    """Return the columns of a table of layers, as text; see :func:`legend`."""
    found = {"layer": [layer.name for layer in layers]}
    if any(layer.layers > 1 for layer in layers):
        found["layers"] = [str(layer.layers) for layer in layers]
    if run.sizes:
        what = "groups" if run.settings.get("groups") else "weights"
        found[what] = [f"{layer.size:,}" for layer in layers]
        found["density"] = [_or_dash(layer.density, "{:.4f}") for layer in layers]
    found["kept"] = [f"{layer.accepted:,}/{layer.blocks:,}" for layer in layers]
    found["moved"] = [f"{layer.moved:,}" for layer in layers]
    found["predicted"] = [f"{layer.predicted:.4f}" for layer in layers]
    if not run.by_pass:
        found["actual"] = [_or_dash(layer.actual, "{:.4f}") for layer in layers]
    if _has_proofs(run):
        found["proved"] = [f"{layer.proved:,}" for layer in layers]
    found["ms"] = [f"{layer.milliseconds:.1f}" for layer in layers]
    return found


def _table(layers: Sequence[LayerFigures], run: Overview) -> Table:
    """Return a table with a row per layer or group of layers, with full names."""
    table, found = plain_table(), columns(layers, run)
    if "layers" in found:  # room for names
        found = {name: column for name, column in found.items() if name not in ("weights", "ms")}
    table.add_column("layer", overflow="fold", min_width=14)
    for name in list(found)[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for name, *rest in _rows(found):
        table.add_row(plain(name), *map(Text, rest))
    return table


def common_prefix(names: Sequence[str]) -> str:
    """Return the common prefix of dotted names, up to and including a dot."""
    parts = [name.split(".")[:-1] for name in names] if len(names) > 1 else [[]]
    shared = [p[0] + "." for p in zip(*parts, strict=False) if len(set(p)) == 1]
    whole = "".join(shared)
    return whole if all(name.startswith(whole) for name in names) else ""


def _rows(found: Mapping[str, list[str]]) -> Iterable[tuple[str, ...]]:
    return zip(*found.values(), strict=True)


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)
