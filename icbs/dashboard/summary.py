"""Tables of the dashboard: what each run is, where it stands, its settings and its layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from icbs.config import brief
from icbs.dashboard.layout import render
from icbs.dashboard.reader import RunReader
from icbs.dashboard.watched import short_names
from icbs.density.target import Target
from icbs.formatting import byte_size, clock, duration, label, metrics, significant, spell
from icbs.report.optimum import optimum_columns, optimum_lines
from icbs.report.overview import Overview
from icbs.report.tables import facts as run_facts


def run_names(readers: Sequence[RunReader]) -> list[str]:
    """Return a name for each run: of its folder, or its path if others have the same name."""
    return short_names([reader.path for reader in readers])


def summary_html(readers: Sequence[RunReader], names: Sequence[str], note: str = "") -> str:
    """Return a table with a row per fact and a column per run, as escaped HTML.

    Parameters
    ----------
    readers : sequence of RunReader
    names : sequence of str
        Name of each run.
    note : str
        Line below the table.
    """
    columns = [facts(reader) for reader in readers]
    rows = list(dict.fromkeys(fact for column in columns for fact in column))
    return render(
        "summary.html.j2",
        names=names,
        rows=[(fact, [column.get(fact, "") for column in columns]) for fact in rows],
        alerts=[
            f"{name}: {alert}"
            for name, reader in zip(names, readers, strict=True)
            if (alert := _alert(reader))
        ],
        note=note,
    )


def settings_html(readers: Sequence[RunReader], names: Sequence[str]) -> str:
    """Return the settings of the runs as escaped HTML; those that differ come first."""
    columns = [dict(_flat(reader.settings)) for reader in readers]
    every = list(dict.fromkeys(name for column in columns for name in column))
    differing = [name for name in every if len({column.get(name) for column in columns}) > 1]
    order = differing + [name for name in every if name not in differing]
    rows = [(name, [column.get(name, "") for column in columns]) for name in order]
    return render("details.html.j2", title="Settings", heads=["setting", *names], rows=rows)


def report_html(reader: RunReader, name: str) -> str:
    """Return the lines of ``icbs report``, and the comparison with the true optimum, as HTML."""
    run = Overview.of(reader.path)
    html = render("notes.html.j2", notes=[str(line) for line in run_facts(run)])
    if run.optimum is None:
        return html
    columns = optimum_columns(run.optimum)
    rows = [(row[0], list(row[1:])) for row in zip(*columns.values(), strict=True)]
    title = f"Comparison with the true optimum of {name}"
    html += render("details.html.j2", title=title, heads=list(columns), rows=rows)
    return html + render("notes.html.j2", notes=optimum_lines(run.optimum))


def layers_html(reader: RunReader, name: str) -> str:
    """Return the figures of all layers of a run as escaped HTML."""
    rows = []
    for layer in reader.layer_names:
        sums, density = reader.layers.get(layer), reader.density(layer)
        shown = [f"{density:.4f}" if math.isfinite(density) else ""]
        if sums is not None:
            shown += [
                f"{sums.accepted:,} of {sums.blocks:,}",
                f"{sums.moved:,}",
                f"{sums.predicted:+.4f}",
                f"{-sums.gain:+.4f}",
            ]
        rows.append((layer, shown + [""] * (5 - len(shown))))
    heads = ["layer", "density", "blocks kept", "weights moved", "predicted", "actual"]
    return render(
        "details.html.j2", title=f"Layers of {name} ({len(rows)})", heads=heads, rows=rows
    )


def facts(reader: RunReader) -> dict[str, str]:
    """Return the facts of a run by name."""
    settings, rows = reader.settings, reader.progress
    found = {"state": reader.state, "task": reader.task}
    last = rows[-1] if rows else None
    if last is not None:
        found["passes"] = f"{last.step} of {last.passes}"
        found["time"] = duration(last.seconds)
        if found["state"] == "running" and math.isfinite(last.remaining):
            found["time left"] = clock(last.remaining)
    elif reader.finished:
        found["passes"] = str(reader.summary["passes"])
        found["time"] = duration(reader.summary["seconds"])
    losses = reader.losses
    if losses:
        now = reader.summary["loss"] if reader.finished else losses[-1][1]
        found["held-out loss"] = f"{significant(reader.initial_loss)} → {significant(now)}"
    found |= _metrics(reader) | _target(reader)
    kept = [d for d in reader.decisions if d.accepted and math.isfinite(d.predicted + d.actual)]
    if kept:
        predicted = math.fsum(d.predicted for d in kept)
        actual = math.fsum(d.actual for d in kept)
        found["change by kept moves"] = f"{predicted:+.4f} predicted, {actual:+.4f} actual"
    blocks = sum(sums.blocks for sums in reader.layers.values())
    if blocks:
        accepted = sum(sums.accepted for sums in reader.layers.values())
        found["blocks kept"] = f"{accepted:,} of {blocks:,} ({accepted / blocks:.0%})"
    costs = reader.costs
    if costs and (whole := math.fsum(costs.values())):
        spent = costs.get("solver", 0.0)
        found["solver"] = f"{duration(spent)} of {duration(whole)} ({spent / whole:.0%})"
    if last is not None:
        found["memory"] = byte_size(last.memory)
        if last.device_memory:
            found["device memory"] = byte_size(last.device_memory)
    if reader.plan is not None and reader.plan.parts:
        found["memory planned"] = byte_size(reader.plan.needed)
    found["settings"] = (
        f"density {settings['density']:g}, solver {settings['solver']}, "
        f"start {reader.start}, seed {settings['seed']}"
    )
    return found


def _metrics(reader: RunReader) -> dict[str, str]:
    """Return each test figure: start → now, and of the dense model."""
    if not reader.evaluations:
        return {}
    first, last = reader.evaluations[0], reader.evaluations[-1]
    found = {}
    for name in metrics(last.figures):
        text = spell(name, last.figures)
        if first.step == 0 and first is not last:
            text = f"{spell(name, first.figures)} → {text}"
        if name in reader.dense:
            text += f" (dense {spell(name, reader.dense)})"
        found[f"test {label(name)}"] = text
    return found


def _target(reader: RunReader) -> dict[str, str]:
    """Return the target of a search, and whether the run meets it."""
    if reader.point is None or not reader.point.judged:
        return {}
    name, limit, _ = reader.point.judged.split()
    target = Target(name, float(limit))
    return {f"target: {target}": f"{reader.point.spelled(target)}, {reader.point.outcome}"}


def _alert(reader: RunReader) -> str:
    if reader.deleted:
        return (
            f"the folder {reader.path} was deleted while it was watched; the figures are those "
            "that were read before"
        )
    return reader.problem


def _flat(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, brief(value)) for name, value in settings.items()]
