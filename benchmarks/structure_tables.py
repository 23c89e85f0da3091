"""The page of the comparison of groups."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.records import Records
from benchmarks.structure_jobs import JOBS, cells
from icbs.formatting import STANDARD_ERROR, metrics

Rows = list[dict[str, Any]]
SEARCHES = "search"
"""Name of the record of the particle filter's comparison."""
INTRODUCTION = """\
# Groups of weights

Heads, neurons or channels, pruned to a share of the multiply-accumulates (for `smollm2` of the
parameters). *random*, *magnitude*, *fisher*, *apoz*, *flap* (with its bias) and *slimming* are
scores; *kwon* the three stages of Kwon et al. (2022), with rows before the third (*untuned*), and
*kwon+solver* with `anneal` for their rearrangement; *layers* ours with one density for all layers,
*model* ours with a budget over the model, without and with the same tuning. *recovered* is after
`icbs.recover` by least squares. *speed* is the dense model's time over that of the cut one, called
in turn, in PyTorch / ONNX Runtime; seconds are those of pruning, on a machine with other work. ± is
the standard error over seeds, or over test samples where there is one seed. Settings are in
`benchmarks/structure_jobs.py`.

| task | budget | method | seeds | cost | held-out loss | test | speed | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def page(records: Records) -> str:
    """Return the page with the tables of all finished cells, with means over seeds."""
    lines = INTRODUCTION.splitlines()
    found, missing = _read(records)
    for (name, share, method), rows in found.items():
        lines += [_line(name, share, label, own) for label, own in _variants(method, rows)]
    if missing:
        lines += ["", "Not measured; `python -m benchmarks.structure` adds them:", ""]
        lines += [f"- {name}: {', '.join(keys)}" for name, keys in missing.items()]
    lines += _sizes(found) + _differences(found) + _searches(records)
    return "\n".join(lines) + "\n"


def _read(records: Records) -> tuple[dict[tuple[str, float, str], Rows], dict[str, list[str]]]:
    """Return the finished cells by task, budget and method, and the keys of the others."""
    found: dict[tuple[str, float, str], Rows] = {}
    missing: dict[str, list[str]] = {}
    for cell in cells():
        if (row := records.find(cell.file)) is not None:
            row = row | {"seed": cell.seed}
            found.setdefault((cell.name, cell.share, cell.method), []).append(row)
        else:
            missing.setdefault(cell.name, []).append(cell.key.partition(":")[2])
    return found, missing


def _variants(method: str, rows: Rows) -> list[tuple[str, Rows]]:
    """Return the rows of a method without tuning, with it, and after recovery."""
    parts = [(method, rows)] if rows else []
    tuned = [row for row in rows if row.get("untuned")]
    if tuned:
        first, second = f"{method}, untuned", method
        if not method.startswith("kwon"):
            first, second = method, f"{method}, tuned"
        parts = [(first, [row | row["untuned"] for row in rows]), (second, tuned)]
    recovered = [row | row["recovered"] | {"loss": None} for row in rows if "recovered" in row]
    return parts + ([(f"{method}, recovered", recovered)] if recovered else [])


def _line(name: str, share: float, label: str, rows: Rows) -> str:
    speed = _column(rows, "speedup")
    if rows[0].get("onnx_speedup") and speed != "–":
        speed += f" / {_column(rows, 'onnx_speedup')}"
    columns = [
        str(len(rows)),
        _column(rows, "share"),
        _column(rows, "loss"),
        ", ".join(
            f"{key} {_figure([row['figures'] for row in rows], key)}"
            for key in metrics(rows[0]["figures"])
        ),
        speed,
        _column(rows, "seconds"),
    ]
    return f"| {name} | {share:g} | {label} | {' | '.join(columns)} |"


def _sizes(found: dict[tuple[str, float, str], Rows]) -> list[str]:
    """Return the table of file sizes and times of the language model."""
    lines = []
    for (name, share, method), rows in found.items():
        if name == "smollm2" and method == "model" and "cut_seconds" in rows[0]:
            dense = found["smollm2", 1.0, "dense"][0]
            length = JOBS[name].options["length"]
            tokens = JOBS[name].timed * length
            lines = [
                "",
                f"SmolLM2-135M at {share:g} of its parameters (*{method}*), {tokens:,} tokens in a "
                "call, on "
                f"{rows[0]['threads']} thread(s):",
                "",
                "| model | weights, MB (float32) | tokens a second |",
                "| --- | --- | --- |",
                f"| dense | {dense['bytes'] / 1e6:.1f} | {tokens / rows[0]['dense_seconds']:.0f} |",
                f"| cut | {rows[0]['bytes'] / 1e6:.1f} | {tokens / rows[0]['cut_seconds']:.0f} |",
            ]
    return lines


def _differences(found: dict[tuple[str, float, str], Rows]) -> list[str]:
    """Return the differences of ours from Kwon et al., seed by seed."""
    lines = []
    for (name, share, method), rows in found.items():
        if method != "model":
            continue
        for label, kwon in _variants("kwon", found.get((name, share, "kwon"), [])):
            others = {row["seed"]: row["figures"] for row in kwon}
            for own_label, own in _variants("model", rows):
                pairs = [(r["figures"], others[r["seed"]]) for r in own if r["seed"] in others]
                if not pairs:
                    continue
                accuracy, loss = (
                    _mean([ours[key] - its[key] for ours, its in pairs], signed=True)
                    for key in ("accuracy", "loss")
                )
                difference = f"{own_label} – {label}"
                lines.append(
                    f"| {name} | {share:g} | {difference} | {len(pairs)} | {accuracy} | {loss} |"
                )
    if not lines:
        return []
    head = [
        "",
        "Differences on test samples, seed by seed (± is the standard error of their mean):",
        "",
        "| task | budget | difference | seeds | accuracy | loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return head + lines


def _searches(records: Records) -> list[str]:
    """Return the table of the particle filter and ours."""
    if (found := records.find(SEARCHES)) is None:
        return []
    by_name: dict[str, Rows] = {}
    for row in found["rows"]:
        by_name.setdefault(row["search"], []).append(row)
    lines = [
        "",
        "Half of the kernels of the small CNN on Fashion-MNIST, by the particle filter of Anwar et "
        "al. (2015) and by ours, with equal numbers of forward passes (a backward pass counts as "
        "two); means over seeds (`python -m benchmarks.structure --search`):",
        "",
        "| search | forward passes of a sample | held-out loss | test |",
        "| --- | --- | --- | --- |",
    ]
    for name, rows in by_name.items():
        figures = [row["figures"] for row in rows]
        test = ", ".join(f"{key} {_figure(figures, key)}" for key in metrics(figures[0]))
        passes = statistics.mean(row["passes"] for row in rows)
        lines.append(f"| {name} | {passes:,.0f} | {_column(rows, 'loss')} | {test} |")
    return lines


def _column(rows: Rows, key: str) -> str:
    """Return the mean of a figure over cells; the dense model has the cost and the test only."""
    return "–" if rows[0].get(key) is None else _mean([row[key] for row in rows])


def _figure(found: list[dict[str, float]], key: str) -> str:
    """Return the mean of a test figure over seeds, with its error over test samples if one."""
    error = found[0].get(key + STANDARD_ERROR)
    if len(found) > 1 or error is None:
        return _mean([figures[key] for figures in found])
    return f"{found[0][key]:.4g} ± {error:.2g}"


def _mean(values: list[float], *, signed: bool = False) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    sign = "+" if signed else ""
    return f"{statistics.mean(values):{sign}.4g}" + (f" ± {error:.2g}" if error else "")
