"""Groups of weights compared: loss and accuracy against MACs, for several scores and searches.

    python -m benchmarks.structure                       # all missing cells
    python -m benchmarks.structure --only 'deit:0.5:*'   # missing cells of a pattern
    python -m benchmarks.structure --table               # write the page only

A cell is a task, a share of the MACs, a method and a seed; it is one file of results, so that an
interrupted benchmark can be continued; benchmarks/results/structure.md has the table of all cells.
All methods have the same samples for scores and the same
held-out samples; test samples are used for the final model only. Dense and cut model are timed in
turn in one process, on the same inputs.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from icbs import Pruner
from icbs.data.samples import read_samples
from icbs.formatting import STANDARD_ERROR, metrics
from icbs.groups.kwon import prune_in_stages, tune_pruned
from icbs.structure.cutting import cut
from icbs.structure.find import find_dimensions
from icbs.structure.latency import model_latencies
from icbs.zoo import load_task
from problems.files import write_text

RESULTS = Path(__file__).parent / "results" / "structure.md"
METHODS = ("random", "magnitude", "fisher", "kwon", "kwon+solver", "layers", "model")
"""``layers``: uniform density, ours; ``model``: a budget over the model, ours."""


@dataclass(frozen=True)
class Job:
    """A task with the kinds of its groups and the settings of all methods."""

    task: str
    groups: str
    shares: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3)
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tuned: tuple[float, ...] = ()
    """Shares at which *model* is also measured after Kwon's tuning of scales."""


JOBS = {
    "sarcasm": Job(
        "sarcasm",
        "heads,neurons",
        shares=(0.7, 0.5, 0.4),
        methods=("magnitude", "kwon", "model"),
        settings={
            "gradient_samples": 384,
            "curvature_samples": 384,
            "acceptance_samples": 256,
            "passes": 0,
        },
        tuned=(0.5,),
    ),
    "deit": Job(
        "deit",
        "heads,neurons",
        settings={
            "gradient_samples": 2048,
            "curvature_samples": 1024,
            "acceptance_samples": 2048,
            "passes": 20,
        },
    ),
    "garment": Job(
        "garment",
        "neurons",
        methods=("random", "magnitude", "fisher", "apoz", "flap", "kwon", "model"),
        settings={"curvature_samples": 1024, "passes": 20},
    ),
    "efficientnet_lite0": Job(
        "efficientnet_lite0",
        "channels",
        shares=(0.9, 0.8, 0.7),
        methods=("random", "magnitude", "slimming", "flap", "fisher", "model"),
        seeds=(0,),
        settings={
            "curvature": "empirical",
            "gradient_samples": 384,
            "curvature_samples": 256,
            "batch_size": 64,
            "passes": 6,
        },
    ),
    "smollm2": Job(
        "language_model",
        "heads,neurons",
        shares=(0.75,),
        methods=("random", "magnitude", "flap", "fisher", "model"),
        seeds=(0,),
        options={
            "model": "smollm2-135m",
            "text": "wikipedia+openwebtext",
            "test_text": "articles",
            "length": 256,
            "samples": 64,
            "test_samples": 64,
        },
        settings={
            "curvature": "empirical",
            "gradient_samples": 32,
            "curvature_samples": 32,
            "acceptance_samples": 16,
            "passes": 5,
        },
    ),
}


@dataclass(frozen=True)
class Cell:
    """A row of the table."""

    name: str
    share: float
    method: str
    seed: int

    @property
    def key(self) -> str:
        """Name of the cell, for ``--only`` and for its file."""
        return f"{self.name}:{self.share:g}:{self.method}:{self.seed}"

    @property
    def file(self) -> str:
        """Name of the file, without its suffix."""
        return self.key.replace(":", "_")


def cells() -> Iterator[Cell]:
    """Yield all cells."""
    for name, job in JOBS.items():
        yield Cell(name, 1.0, "dense", 0)
        for share in job.shares:
            for method in job.methods:
                for seed in job.seeds:
                    yield Cell(name, share, method, seed)


def run(cell: Cell) -> dict[str, Any]:
    """Prune, cut and evaluate."""
    job = JOBS[cell.name]
    task = load_task(job.task, **job.options)
    if cell.method == "dense":
        return {"share": 1.0, "figures": dict(task.evaluate(task.model))}
    dense = copy.deepcopy(task.model)
    inputs = read_samples(task.batches, 8)[:8].inputs
    dimensions = find_dimensions(dense, inputs, job.groups.split(","))
    quantity = "parameters" if cell.name == "smollm2" else "macs"
    settings = {"groups": job.groups, "seed": cell.seed, **job.settings}
    budget = {"budget": {quantity: cell.share}}
    began = time.perf_counter()
    untuned: dict[str, Any] = {}
    if cell.method.startswith("kwon"):

        def note(stage: str) -> None:
            if stage == "rearranged":
                untuned["seconds"] = time.perf_counter() - began
                untuned["figures"] = dict(task.evaluate(task.model))

        searcher = "anneal" if cell.method.endswith("solver") else "greedy"
        found = prune_in_stages(
            task.model,
            task.batches,
            task.loss,
            rearrangement=searcher,
            after=note,
            **settings | budget,
        )
        kept, stages, share = found.kept, found.losses, found.share
        loss, density = list(stages.values())[-1], 0.0
        untuned["loss"] = stages["rearranged"]
    else:
        own: dict[str, Any] = dict(budget)
        if cell.method == "layers":  # the density that the budget needs, in every layer
            own = {"density": _density(task, settings, quantity, cell.share)}
        elif cell.method != "model":
            own |= {"initial": cell.method, "passes": 0}
        result = Pruner(**settings | own).prune(task.model, task.batches, task.loss, progress=False)
        kept, loss, density = result.groups, result.loss, result.density
        share = result.group_figures["shares"][quantity]
        stages = {"start": result.initial_loss, "end": result.loss}
        if cell.method == "model" and cell.share in job.tuned:
            untuned = {"seconds": time.perf_counter() - began, "loss": loss}
            untuned["figures"] = dict(task.evaluate(cut(task.model, dimensions, kept)))
            task.model.load_state_dict(dense.state_dict())
            tuned = tune_pruned(task.model, kept, task.batches, task.loss, **settings | budget)
            stages, loss = stages | tuned.losses, tuned.losses["tuned"]
    seconds = time.perf_counter() - began
    smaller = cut(task.model, dimensions, kept)
    figures = dict(task.evaluate(smaller))
    times = model_latencies({"dense": dense, "cut": smaller}, inputs)
    return {
        "share": share,
        "loss": loss,
        "density": density,
        "stages": stages,
        "untuned": untuned,
        "figures": figures,
        "seconds": seconds,
        "speedup": times["dense"] / times["cut"],
        "device": str(next(dense.parameters()).device),
        "threads": torch.get_num_threads(),
    }


def _density(task: Any, settings: dict[str, Any], quantity: str, share: float) -> float:
    """Return the largest uniform density within a share of the cost, to two digits."""
    low, high = 0.02, 0.99
    while high - low > 0.01:
        middle = (low + high) / 2
        trial = Pruner(**settings | {"density": middle, "initial": "magnitude", "passes": 0})
        found = trial.prune(copy.deepcopy(task.model), task.batches, task.loss, progress=False)
        if found.group_figures["shares"][quantity] <= share:
            low = middle
        else:
            high = middle
    return low


def table(folder: Path) -> str:
    """Return the page with the table of all finished cells, with means over seeds."""
    rows: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for cell in cells():
        path = folder / f"{cell.file}.json"
        if path.exists():
            rows.setdefault((cell.name, cell.share, cell.method), []).append(
                json.loads(path.read_text())
            )
    lines = [
        "# Groups of weights",
        "",
        "Heads, neurons or channels, pruned to a share of the multiply-accumulates (parameters for",
        "`smollm2`), without recovery. *random*, *magnitude* and *fisher* are scores; *kwon* the",
        "three stages of Kwon et al. (2022), *kwon+solver* with `anneal` for their rearrangement;",
        "*layers* ours with one density for all layers, *model* ours with a budget over the model.",
        "*speed* is the dense model's time over that of the cut one, called in turn; seconds are",
        "those of pruning, on a machine with other work. ± is the standard error over seeds, or",
        "over test samples where there is one seed. Settings are in `benchmarks/structure.py`.",
        "",
        "| task | budget | method | cost | held-out loss | test | speed | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, share, method), found in rows.items():
        columns = [
            _column(found, "share"),
            _column(found, "loss"),
            ", ".join(
                f"{key} {_figure([cell['figures'] for cell in found], key)}"
                for key in metrics(found[0]["figures"])
            ),
            _column(found, "speedup"),
            _column(found, "seconds"),
        ]
        lines.append(f"| {name} | {share:g} | {method} | {' | '.join(columns)} |")
    missing = [cell for cell in cells() if not (folder / f"{cell.file}.json").exists()]
    lines += ["", "Cells that were not measured, which `python -m benchmarks.structure` adds:", ""]
    for name in JOBS:
        own = [cell for cell in missing if cell.name == name]
        total = sum(cell.name == name for cell in cells())
        lines.append(f"- {name}: {len(own)} of {total}")
    return "\n".join(lines) + "\n"


def _column(found: list[dict[str, Any]], key: str) -> str:
    """Return the mean of a figure over cells; the dense model has the cost and the test only."""
    return _mean([cell[key] for cell in found]) if key in found[0] else "–"


def _figure(found: list[dict[str, float]], key: str) -> str:
    """Return the mean of a test figure over seeds, with its error over test samples if one."""
    error = found[0].get(key + STANDARD_ERROR)
    if len(found) > 1 or error is None:
        return _mean([figures[key] for figures in found])
    return f"{found[0][key]:.4g} ± {error:.2g}"


def _mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4g}" + (f" ± {error:.2g}" if error else "")


def main(
    only: Annotated[str, typer.Option(help="Pattern of cells.")] = "*",
    folder: Annotated[Path, typer.Option(help="Files of the cells.")] = Path("runs/structure"),
    table_only: Annotated[bool, typer.Option("--table", help="Write the page only.")] = False,
    out: Annotated[Path, typer.Option(help="Page of the results.")] = RESULTS,
) -> None:
    """Run missing cells and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells():
        path = folder / f"{cell.file}.json"
        if table_only or path.exists() or not fnmatchcase(cell.key, only):
            continue
        found = run(cell)
        write_text(path, json.dumps(found, indent=2))
        print(cell.key, json.dumps(found), flush=True)
    write_text(out, table(folder))
    print(table(folder))


if __name__ == "__main__":
    typer.run(main)
