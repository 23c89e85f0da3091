"""Groups of weights compared: loss and accuracy against MACs, for several scores and searches.

    python -m benchmarks.structure                       # all missing cells
    python -m benchmarks.structure --only 'deit:0.5:*'   # missing cells of a pattern
    python -m benchmarks.structure --search              # the particle filter's comparison
    python -m benchmarks.structure --table               # write the page only

A cell is a task, a share of the MACs, a method and a seed. Cells whose results are committed
(``results/structure.json``) don't run; an interrupted benchmark is continued by the same command.
All methods have the same numbers of samples for scores and of held-out samples, drawn by the seed;
test samples are used for final models only. Dense and cut model are timed in turn in one process,
on the same inputs.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from benchmarks.records import Records
from benchmarks.structure_jobs import SCORES, Cell, cells
from benchmarks.structure_search import compare_searches
from benchmarks.structure_tables import SEARCHES, page
from icbs import Pruner, recover
from icbs.data.samples import read_samples
from icbs.groups.flap import add_mean_biases
from icbs.groups.kwon import prune_in_stages, tune_pruned
from icbs.structure.cutting import cut
from icbs.structure.find import find_dimensions
from icbs.structure.latency import latencies, model_latencies
from icbs.structure.onnx_files import OnnxModel, export_onnx
from icbs.zoo import Task, load_task
from problems.files import write_text

RESULTS = Path(__file__).parent / "results" / "structure.md"


@dataclass
class Pruned:
    """What a method made of a cell's model."""

    kept: dict[str, Tensor]
    masks: dict[str, Tensor]
    share: float
    stages: dict[str, float]
    """Held-out losses."""
    untuned: dict[str, Any] = field(default_factory=dict)
    """Loss, test figures and seconds before the tuning of scales."""

    @property
    def loss(self) -> float | None:
        """Held-out loss at the end, if it was measured."""
        return list(self.stages.values())[-1] if self.stages else None


def run(cell: Cell) -> dict[str, Any]:
    """Prune, cut and evaluate."""
    job = cell.job
    task = load_task(job.task, **job.options)
    task.model.eval()
    inputs = read_samples(task.batches, job.timed)[: job.timed].inputs
    if cell.method == "dense":
        size = sum(p.numel() * p.element_size() for p in task.model.parameters())
        return {"share": 1.0, "figures": dict(task.evaluate(task.model)), "bytes": size}
    dense = copy.deepcopy(task.model)
    dimensions = find_dimensions(dense, inputs, job.groups.split(","))
    began = time.perf_counter()
    found = _in_stages(cell, task) if cell.method.startswith("kwon") else _searched(cell, task)
    seconds = time.perf_counter() - began
    smaller = cut(task.model, dimensions, found.kept)
    row = {
        "share": found.share,
        "loss": found.loss,
        "stages": found.stages,
        "untuned": found.untuned,
        "figures": dict(task.evaluate(smaller)),
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "bytes": sum(p.numel() * p.element_size() for p in smaller.parameters()),
        **_times(dense, smaller, inputs, onnx=job.onnx),
    }
    if job.recovery is not None and cell.method in job.recovered:
        began = time.perf_counter()
        recover(
            task.model, found.masks, task.batches, task.loss,
            dense=dense, seed=cell.seed, progress=False, **job.recovery,
        )  # fmt: skip
        row["recovered"] = {
            "seconds": time.perf_counter() - began,
            "figures": dict(task.evaluate(cut(task.model, dimensions, found.kept))),
        }
    return row


def _settings(cell: Cell) -> dict[str, Any]:
    job = cell.job
    budget = {job.quantity: cell.share}
    return {"groups": job.groups, "seed": cell.seed, "budget": budget, **job.settings}


def _in_stages(cell: Cell, task: Task) -> Pruned:
    """Prune by the three stages of Kwon et al., with measurements before the last."""
    untuned: dict[str, Any] = {}
    began = time.perf_counter()

    def note(stage: str) -> None:
        if stage == "rearranged":
            untuned["seconds"] = time.perf_counter() - began
            untuned["figures"] = dict(task.evaluate(task.model))

    searcher = "anneal" if cell.method.endswith("solver") else "greedy"
    found = prune_in_stages(
        task.model, task.batches, task.loss, rearrangement=searcher, after=note, **_settings(cell)
    )
    untuned["loss"] = found.losses["rearranged"]
    return Pruned(found.kept, found.masks, found.share, found.losses, untuned)


def _searched(cell: Cell, task: Task) -> Pruned:
    """Prune by a score, or by our search."""
    job, dense = cell.job, copy.deepcopy(task.model)
    settings = _settings(cell)
    own: dict[str, Any] = {}
    if cell.method in SCORES:
        own = {"initial": cell.method, "passes": 0}
    elif cell.method == "layers":  # the density that the budget needs, in every layer
        own = {"density": _density(cell, task), "budget": None}
    began = time.perf_counter()
    result = Pruner(**settings | own).prune(task.model, task.batches, task.loss, progress=False)
    stages = {"start": result.initial_loss, "end": result.loss}
    share = result.group_figures["shares"][job.quantity]
    found = Pruned(result.groups, result.masks, share, stages)
    if cell.method == "flap":
        add_mean_biases(task.model, result.masks, task.batches, task.loss, dense=dense)
        found.stages.clear()  # measured without the biases
    if cell.method == "model" and cell.share in job.tuned and cell.seed == job.seeds[0]:
        found.untuned = {"seconds": time.perf_counter() - began, "loss": result.loss}
        found.untuned["figures"] = dict(task.evaluate(task.model))
        task.model.load_state_dict(dense.state_dict())
        tuned = tune_pruned(task.model, result.groups, task.batches, task.loss, **settings)
        found.stages |= tuned.losses
    return found


def _density(cell: Cell, task: Task) -> float:
    """Return the largest uniform density within a share of the cost, to two digits."""
    low, high = 0.02, 0.99
    settings = _settings(cell) | {"budget": None, "initial": "magnitude", "passes": 0}
    while high - low > 0.01:
        middle = (low + high) / 2
        model = copy.deepcopy(task.model)
        trial = Pruner(**settings | {"density": middle})
        found = trial.prune(model, task.batches, task.loss, progress=False)
        if found.group_figures["shares"][cell.job.quantity] <= cell.share:
            low = middle
        else:
            high = middle
    return low


def _times(dense: nn.Module, smaller: nn.Module, inputs: Any, *, onnx: bool) -> dict[str, float]:
    """Return the times of both models and their ratios."""
    times = model_latencies({"dense": dense, "cut": smaller}, inputs)
    found = {"dense_seconds": times["dense"], "cut_seconds": times["cut"]}
    found["speedup"] = times["dense"] / times["cut"]
    if onnx:
        with tempfile.TemporaryDirectory() as folder:
            calls = {}
            for name, model in (("dense", dense), ("cut", smaller)):
                path = Path(folder) / f"{name}.onnx"
                export_onnx(model, inputs, path)
                calls[name] = partial(OnnxModel(path), inputs)
            times = latencies(calls)
        found["onnx_speedup"] = times["dense"] / times["cut"]
        found["onnx_cut_seconds"] = times["cut"]
    return found


def main(
    only: Annotated[list[str], typer.Option(help="Patterns of cells.")] = ["*"],  # noqa: B006
    folder: Annotated[Path, typer.Option(help="New results of cells.")] = Path("runs/structure"),
    search: Annotated[bool, typer.Option(help="Compare the particle filter, and stop.")] = False,
    table_only: Annotated[bool, typer.Option("--table", help="Write the page only.")] = False,
) -> None:
    """Run missing cells and write the page."""
    records = Records(RESULTS.with_suffix(".json"), folder)
    if search:
        records.add(SEARCHES, {"rows": compare_searches()})
    for cell in () if table_only or search else cells():
        if records.find(cell.file) is None and any(fnmatchcase(cell.key, one) for one in only):
            found = run(cell)
            records.add(cell.file, found)
            print(cell.key, json.dumps(found), flush=True)
    records.save()
    write_text(RESULTS, page(records))


if __name__ == "__main__":
    typer.run(main)
