"""iCBS compared with magnitude, Wanda and SparseGPT on real models: masks, losses, accuracies.

    python -m benchmarks.pruning                          # all missing cells
    python -m benchmarks.pruning --only 'smollm2:0.5:*'   # missing cells of a pattern
    python -m benchmarks.pruning --table                  # write the tables only

A cell is a model, a level (a density, or N:M) and a method. Each cell is pruned and evaluated in
its own process, whose peak memory is recorded, and each step writes a file, so that an
interrupted benchmark can be continued. iCBS starts from Wanda's mask, and its runs are resumed
too. All methods use the same calibration samples; test samples are used for final masks only.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.pruning_tables import write_tables
from icbs import Progress, Pruner, load_compressed, save_compressed
from icbs.cli.config_file import Settings
from icbs.cli.prune import DEFAULTS
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise
from icbs.lm import zero_shot
from icbs.zoo import Task, load_task
from problems.files import write_text

METHODS = ("magnitude", "wanda", "sparsegpt", "exchange", "icbs")
ICBS: dict[str, dict[str, Any]] = {
    "icbs": {},
    "together": {"weights": "global"},
    "shared": {"weights": "global", "allocation": "loss"},
    "sparsegpt+icbs": {"weights": "initial", "initial": "sparsegpt"},
    "alps+icbs": {"weights": "initial", "initial": "alps"},
}
"""Methods by iCBS, with the settings by which they differ."""
QUESTIONS = ("movie_recommendation", "next_sentence")
CALIBRATION = 16
"""Number of sequences, or a 64th of the number of images, for the calibration loss."""


@dataclass(frozen=True)
class Job:
    """A task with its levels and the settings of iCBS."""

    task: str
    levels: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    max_samples: int = 65536
    """Number of training samples for all methods."""
    icbs: dict[str, Any] = field(default_factory=dict)
    start: str = "wanda"
    """Method of the initial mask of iCBS."""
    fresh: bool = False
    """Whether each seed has training samples of its own."""
    config: Path | None = None
    """File of settings; those in :attr:`icbs` take precedence."""

    def settings(self) -> dict[str, Any]:
        """Return the settings of iCBS."""
        if self.config is None:
            return self.icbs
        return Settings.read(self.config, {}).pruner.model_dump(exclude_unset=True) | self.icbs


JOBS = {
    "smollm2": Job(
        "language_model",
        ("0.7", "0.5", "0.4", "2:4"),
        options={
            "model": "smollm2-135m",
            "text": "wikipedia+openwebtext",
            "test_text": "articles",
            "length": 256,
            "samples": 64,
            "test_samples": 64,
        },
        exclude=("lm_head",),
        config=DEFAULTS,
        icbs={
            "gradient_samples": 16,
            "curvature_samples": 16,
            "acceptance_samples": 16,
            "max_memory": "4GB",
            "passes": 6,
        },
    ),
    "deit": Job(
        "deit",
        ("0.5", "0.3", "0.2"),
        max_samples=8192,
        icbs={"passes": 12, "gradient_samples": 1024, "acceptance_samples": 2048},
    ),
    "efficientnet_lite0": Job(
        "efficientnet_lite0",
        ("0.9", "0.8", "0.7"),
        # Depthwise convolutions have one percent of the weights, and nine inputs per output.
        exclude=("conv_stem", "*.depthwise_conv"),
        icbs={
            "passes": 10,
            "schedule": "uniform",
            "curvature": "empirical",
            "gradient_samples": 384,
            "batch_size": 64,
        },
    ),
}


@dataclass(frozen=True)
class Cell:
    """A row of a table, with the folder of its files."""

    name: str
    level: str
    method: str
    seed: int
    root: Path
    job: Job

    @property
    def key(self) -> str:
        """Name on the command line."""
        return f"{self.name}:{self.level}:{self.method}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the result, in types of JSON."""
        job = self.job
        found: dict[str, Any] = {"options": job.options, "exclude": job.exclude}
        found |= {"max_samples": job.max_samples}
        if self.method in ICBS:
            found |= {"start": job.start, "icbs": job.settings() | ICBS[self.method]}
        return dict(json.loads(json.dumps(found, default=str)))

    @property
    def folder(self) -> Path:
        """Folder of the cell's files."""
        return self.root / (self.key.replace(":", "-") + (f"-seed{self.seed}" if self.seed else ""))

    def beside(self, method: str) -> Cell:
        """Return the cell of another method at the same level."""
        return replace(self, method=method)

    def samples(self, task: Task) -> Iterator[tuple[Any, Any]]:
        """Yield the training samples of all methods, in batches."""
        skip = self.seed * self.job.max_samples if self.job.fresh else 0
        return first(task.batches, self.job.max_samples, skip)

    def step(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of a step, from its file or by running it."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(make(), indent=1))
        return dict(json.loads(file.read_text()))


def cells(seed: int, root: Path) -> list[Cell]:
    """Return all cells, each after those that it depends on."""
    found = []
    for name, job in JOBS.items():
        dense = Cell(name, "1", "dense", seed, root, job)
        found += [dense]
        found += [replace(dense, level=lv, method=m) for lv in job.levels for m in METHODS]
    return found


def run(cell: Cell, questions: int) -> None:
    """Run the missing steps of a cell."""
    task = load_task(cell.job.task, **cell.job.options)
    if cell.method != "dense":
        cell.step("pruned", lambda: prune_cell(cell, task))
        state, _ = load_compressed(cell.folder / "model.safetensors")
        task.model.load_state_dict(state)
    cell.step("measured", lambda: measure(task))
    if questions and task.tokenizer is not None:
        cell.step("asked", lambda: ask(task, questions))


def prune_cell(cell: Cell, task: Task) -> dict[str, Any]:
    """Prune the task's model by the cell's method, and save it as a compressed file."""
    nm = ":" in cell.level
    exclude = list(cell.job.exclude)
    begin, processor = time.perf_counter(), time.process_time()
    facts: dict[str, Any] = {}
    if cell.method in ICBS:
        start = cell.beside(cell.job.start).folder / "model.safetensors"
        if not starts_alone(cell.method) and not start.exists():
            raise SystemExit(f"{cell.key} starts from the mask of {cell.job.start}: run it first")
        given = None if starts_alone(cell.method) else load_compressed(start)[1]
        result = descend(cell, task, given, nm, exclude)
        masks, density, facts = result.masks, result.density, result.summary()
    else:
        level: dict[str, Any] = {"pattern": cell.level} if nm else {"density": float(cell.level)}
        batches = cell.samples(task)
        found = prune_layerwise(task.model, batches, cell.method, exclude=exclude, **level)
        masks, density = found.masks, found.density
    seconds = facts.get("seconds", time.perf_counter() - begin)
    size = save_compressed(task.model.state_dict(), masks, cell.folder / "model.safetensors")
    return {
        "density": density,
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "bytes": size,
        "seed": cell.seed,
        "threads": torch.get_num_threads(),
        "told": cell.settings,
        "facts": facts,
    }


def starts_alone(method: str) -> bool:
    """Whether a method by iCBS does not begin at the mask of another cell.

    A mask of uniform densities is a poor start for budgets that move.
    """
    return not {"allocation", "initial"}.isdisjoint(ICBS.get(method, {}))


def first(batches: Iterable[Any], most: int, skip: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield the first ``most`` samples after those that are skipped, in batches."""
    for inputs, targets in batches:
        if most <= 0:
            return
        every = Samples(inputs, targets)
        some = every[skip : skip + most]
        skip = max(0, skip - len(every))
        most -= len(some)
        if len(some):
            yield some.inputs, some.targets


def descend(cell: Cell, task: Task, masks: Any, nm: bool, exclude: list[str]) -> Any:
    """Run iCBS from given masks, or resume an interrupted run."""
    folder = cell.folder / "run"
    batches = cell.samples(task)

    def report(progress: Progress) -> None:
        left = f", {progress.remaining / 60:.0f} min left" if progress.step else ""
        print(
            f"{cell.key}: pass {progress.step} of {progress.passes}, "
            f"held-out loss {progress.loss:.4f}{left}",
            flush=True,
        )

    if (folder / "config.yaml").exists():
        return Pruner.resume(folder, task.model, batches, task.loss, callback=report)
    level = {"constraint": cell.level} if nm else {"density": float(cell.level)}
    settings = cell.job.settings() | {"initial": cell.job.start} | ICBS[cell.method] | level
    settings |= {"exclude": exclude, "seed": cell.seed}
    return Pruner(**settings).prune(
        task.model, batches, task.loss, masks=masks, run=folder, callback=report
    )


def measure(task: Task) -> dict[str, Any]:
    """Measure losses on calibration and on test samples."""
    assert task.losses is not None
    inputs, targets = next(iter(task.batches))
    few = CALIBRATION if isinstance(inputs, dict) else 64 * CALIBRATION
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, min(few, len(targets)), max(1, few // 16)):
            part = slice(start, min(start + max(1, few // 16), few))
            given = inputs["input_ids"] if isinstance(inputs, dict) else inputs
            own = targets[part]
            total += float(task.loss(task.model(given[part]), own)) * len(own)
            count += len(own)
    figures = {} if task.tokenizer is not None else task.evaluate(task.model)
    return {
        "calibration": total / count,
        "losses": task.losses(task.model).tolist(),
        "figures": figures,
    }


def ask(task: Task, questions: int) -> dict[str, Any]:
    """Evaluate zero-shot tasks."""
    found = zero_shot(task.model, task.tokenizer, QUESTIONS, limit=questions, batch_size=4)
    return {name: asdict(accuracy) for name, accuracy in found.items()}


def main(
    only: Annotated[list[str], typer.Option(help="Cells, as globs on model:level:method.")] = ["*"],  # noqa: B006
    questions: Annotated[int, typer.Option(help="Questions of each zero-shot task.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of iCBS.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the cells.")] = Path("runs/pruning"),
    table: Annotated[bool, typer.Option(help="Only write the tables.")] = False,
    cell: Annotated[str, typer.Option(help="Run one cell in this process.")] = "",
) -> None:
    """Run the cells that are missing, then write the tables."""
    known = cells(seed, out)
    if cell:
        run(next(c for c in known if c.key == cell), questions)
        return
    if not table:
        for pattern in only:
            for one in known:
                if fnmatchcase(one.key, pattern):
                    _run_process(one, questions, seed, out)
    write_tables(known, Path(__file__).parent / "results" / "pruning")


def _run_process(cell: Cell, questions: int, seed: int, out: Path) -> None:
    """Run a cell in a separate process, unless it is complete."""
    file = cell.folder / "pruned.json"
    if file.exists() and json.loads(file.read_text()).get("told", cell.settings) != cell.settings:
        raise SystemExit(f"{cell.folder} has {cell.key} with other settings: delete it first")
    steps = ["measured", *(["pruned"] if cell.method != "dense" else [])]
    steps += ["asked"] if questions and cell.name == "smollm2" else []
    if all((cell.folder / f"{name}.json").exists() for name in steps):
        return
    print(f"{time.strftime('%H:%M')} {cell.key}", flush=True)
    command = [sys.executable, "-m", "benchmarks.pruning", "--cell", cell.key]
    command += ["--questions", str(questions), "--seed", str(seed), "--out", str(out)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    typer.run(main)
