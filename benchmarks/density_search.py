"""Largest sparsity at half a point of accuracy, by density search with several methods.

    python -m benchmarks.density_search                  # the garment classifier
    python -m benchmarks.density_search --task deit      # the vision transformer
    python -m benchmarks.density_search --table          # write the table only

All methods prune with the same training samples. Test samples judge the pruned models, which is
what a search does with a task; no method uses them for masks or weights. Searches whose results
are committed (``results/density_search.json``) don't run; each has a folder, so that an interrupted
benchmark is continued by the same command.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.records import Records
from icbs import TargetError, search
from icbs.data.samples import Samples
from icbs.density.judge import by_task
from icbs.density.runs import SearchProgress
from icbs.formatting import byte_size
from icbs.zoo import Task, load_task
from problems.files import write_text

RESULTS = Path(__file__).parent / "results" / "density_search"
SAMPLES = 8192
"""Training samples for masks and weights."""
MAX_ACCURACY_LOSS = 0.005
ICBS: dict[str, Any] = {"method": "icbs", "passes": 30, "initial": "wanda"}
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "Wanda": {"method": "wanda"},
    "SparseGPT": {"method": "sparsegpt"},
    "iCBS": ICBS,
    "magnitude, recovery `least-squares`": {"method": "magnitude", "recover": "least-squares"},
    "iCBS, recovery `least-squares`": ICBS | {"recover": "least-squares"},
    "magnitude, recovery `distill`": {"method": "magnitude", "recover": "distill"},
    "iCBS with weights and densities, recovery `distill`": ICBS
    | {"weights": "global", "allocation": "loss", "recover": "distill"},
}
TASKS: dict[str, dict[str, Any]] = {
    "garment": {},
    "deit": {"passes": 6, "gradient_samples": 1024, "acceptance_samples": 2048},
}
"""Settings of iCBS by task."""


def first(batches: Iterable[Any], most: int) -> Iterator[tuple[Any, Any]]:
    """Yield the first samples, in batches."""
    for inputs, targets in batches:
        if most <= 0:
            return
        some = Samples(inputs, targets)[:most]
        most -= len(some)
        yield some.inputs, some.targets


def record(task: str, method: str) -> str:
    """Return the name of a search's record."""
    return "-".join((task, *re.findall("[a-z]+", method.lower())))


def run(task: Task, name: str, tolerance: float, folder: Path) -> dict[str, Any]:
    """Search with one method; return its row."""
    settings = METHODS[name] | (TASKS[task.name] if METHODS[name]["method"] == "icbs" else {})

    def show(progress: SearchProgress) -> None:
        if (point := progress.point) is not None:
            print(
                f"{time.strftime('%H:%M')} {name}: density {point.density:g}, "
                f"{progress.curve.spell(point)}, {point.verdict}",
                flush=True,
            )

    row: dict[str, Any] = {"method": name, "threads": torch.get_num_threads()}
    try:
        result = search(
            task.model,
            first(task.batches, SAMPLES),
            task.loss,
            max_accuracy_loss=MAX_ACCURACY_LOSS,
            evaluate=by_task(task),
            run=folder,
            callback=show,
            tolerance=tolerance,
            **settings,
        )
    except TargetError as error:
        row["error"] = str(error)
    else:
        summary = result.summary()
        del summary["points"]
        curve, point = result.curve, result.point
        row |= summary | {
            "point": point.model_dump(),
            "spelled": curve.spell(point),
            "seconds": sum(p.seconds for p in curve.points),
            "runs": len(curve.points),
            "dense": curve.dense,
            "dense_size": curve.dense_size,
            "dense_macs": curve.dense_macs,
        }
        task.model.load_state_dict(load_task(task.name).model.state_dict())
    return row


def table(task: str, rows: list[dict[str, Any]], tolerance: float) -> list[str]:
    """Return the section of a task in Markdown."""
    done = [row for row in rows if "error" not in row]
    dense = done[0]
    lines = [
        f"## {task}",
        "",
        f"Dense: {dense['dense']['accuracy']:.2%} test accuracy, "
        f"{byte_size(dense['dense_size'])}, {dense['dense_macs']:,} MACs. {SAMPLES:,} training "
        f"samples for masks and recovery; densities to {tolerance:.0%}. A "
        "sparsity is certain if the whole 95 % interval of the loss of "
        "accuracy, paired over test samples, is within the target.",
        "",
        "| method | largest sparsity | accuracy loss (95% interval) | certain | compressed file | "
        "nonzero MACs | runs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['method']} | none | {row['error']} | | | | |")
            continue
        certain = row["lowest_certain"]
        point = row["point"]
        lines.append(
            f"| {row['method']} | {1 - row['density']:.1%} | {row['spelled']} | "
            f"{'none' if certain is None else f'{1 - certain:.1%}'} | {byte_size(point['size'])} | "
            f"{point['macs']:,} | {row['runs']} |"
        )
    return [*lines, ""]


def main(
    task: Annotated[list[str], typer.Option(help="Tasks to run.")] = ["garment"],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="Methods, as globs.")] = ["*"],  # noqa: B006
    tolerance: Annotated[float, typer.Option(help="Relative accuracy of a density.")] = 0.05,
    out: Annotated[Path, typer.Option(help="Folder of the searches.")] = Path("runs/density"),
    table_only: Annotated[bool, typer.Option("--table", help="Only write the table.")] = False,
) -> None:
    """Run the searches that are missing, then write the table of all that are finished."""
    records = Records(RESULTS.with_suffix(".json"), out / "rows")
    for name in task if not table_only else ():
        loaded = load_task(name)
        for method in METHODS:
            key = record(name, method)
            wanted = any(fnmatch.fnmatch(method, pattern) for pattern in only)
            if wanted and records.find(key) is None:
                records.add(key, run(loaded, method, tolerance, out / key))
    records.save()
    lines = [
        "# Largest sparsity at half a point of accuracy",
        "",
        "By `icbs search --max-accuracy-loss 0.005` with each method: bisection over the density, "
        "judged on the test samples, which pruning and recovery never see.",
        "",
    ]
    for name in TASKS:
        rows = [row for m in METHODS if (row := records.find(record(name, m))) is not None]
        if any("error" not in row for row in rows):
            lines += table(name, rows, tolerance)
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
