"""Recoveries of masks of several methods: losses, accuracies, time and memory.

    python -m benchmarks.recovery                              # all missing cells
    python -m benchmarks.recovery --only 'garment:0.1:*'       # missing cells of a pattern
    python -m benchmarks.recovery --seeds 3 --only 'garment*'  # three seeds
    python -m benchmarks.recovery --table                      # write the tables only

A cell is a model, a level, a mask and a recovery, with a seed, and has a process of its own, whose
peak memory is recorded. Masks are those of :mod:`benchmarks.pruning`, in its folder: each is made
once. Cells whose results are committed (``results/recovery.json``) don't run, unless ``--again``;
an interrupted benchmark is continued by the same command. All methods use the same samples;
a fifth of them is held out by the recoveries. Test samples are used for final models only. Times
are those of the processor, which other work on the machine does not change much: set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import copy
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import torch
import typer

from benchmarks import pruning
from benchmarks.gradual_magnitude import train_pruned
from benchmarks.records import Records
from benchmarks.recovery_tables import write_tables
from icbs import load_compressed, recover
from icbs.config import Precision
from icbs.data.precision import relative_time
from icbs.zoo import Task, load_task

MASKS = ("magnitude", "wanda", "sparsegpt", "alps", *pruning.ICBS)
RECOVERIES: dict[str, dict[str, Any]] = {
    "none": {},
    "least-squares": {"method": "least-squares"},
    "blocks": {"method": "blocks"},
    "overlapping blocks": {"method": "blocks", "window": 2},
    "global": {"method": "global"},
    "distill": {"method": "distill"},
    "auto": {"method": "auto"},
}
MORE_RECOVERIES: dict[str, dict[str, dict[str, Any]]] = {
    "efficientnet_lite0": {"statistics": {"method": "statistics"}},
    "smollm2": {
        f"{method}, generated": {"method": method, "generate": 256}
        for method in ("global", "distill")
    },
}
"""Recoveries of single jobs: of batch normalisation, and with self-generated samples."""
MORE: dict[str, dict[str, dict[str, Any]]] = {
    "garment": {"distill": {"epochs": 6, "batch": 128, "learning_rate": 2e-3}},
    "garment-512": {"distill": {"epochs": 100}},
    "efficientnet_lite0": {"distill": {"learning_rate": 1e-4, "batch": 32}},
    "smollm2": {"distill, generated": {"epochs": 4, "learning_rate": 3e-4, "judge": "divergence"}},
}
"""Settings of the recoveries by job, in addition to :data:`RECOVERIES`."""
FASTER: Precision = "bfloat16" if relative_time("bfloat16") < 1 else "float32"
"""Precision of passes of the language model, that in which this processor is faster."""
LIMITS: dict[str, dict[str, Any]] = {"smollm2": {"precision": FASTER, "max_memory": "5GB"}}
"""Settings of all recoveries of a job."""
RIVALS: dict[str, dict[str, Any]] = {
    "fine-tuning": {"gradual": False},
    "gradual": {"gradual": True},
    "gradual, dense targets": {"gradual": True, "taught": True},
    "gradual, one threshold": {"gradual": True, "taught": True, "shared": True},
}
"""Training of the magnitude mask for the time of :data:`EQUAL`, as recoveries of ``magnitude``."""
EQUAL = ("shared", "distill")
"""Mask and recovery whose time the rivals get."""
FOREIGN = {"smollm2": "dialogues"}
"""Another text for testing, of another kind than that of the calibration."""
SEEDS = 3
RESULTS = Path(__file__).parent / "results" / "recovery"
FEW_LOSSES = 512
"""Number of test samples up to which their losses are recorded, for paired differences."""
GARMENT = pruning.Job(
    "garment",
    ("0.3", "0.1", "0.05", "0.02"),
    icbs={"passes": 12},
)
PASSES = {"precision": FASTER, "passes": 5, "gradient_samples": 48, "curvature_samples": 48}
DEIT, SMOLLM2 = pruning.JOBS["deit"], pruning.JOBS["smollm2"]
LITE0 = pruning.JOBS["efficientnet_lite0"]
FEW = {
    "curvature": "monte-carlo",
    "gradient_samples": 614,
    "acceptance": "pass",
    "acceptance_samples": 154,
    "passes": 4,
}
"""Passes of EfficientNet. Its targets are probabilities, whose empirical Fisher vanishes at the
dense model, and there are too few held-out photographs to decide on each block by itself."""
JOBS = {
    "garment": GARMENT,
    "garment-512": replace(GARMENT, max_samples=512, fresh=True),
    **pruning.JOBS,
    "deit": replace(DEIT, levels=GARMENT.levels, icbs=DEIT.icbs | {"passes": 6}),
    "efficientnet_lite0": replace(LITE0, icbs=LITE0.icbs | FEW),
    "smollm2": replace(SMOLLM2, icbs=SMOLLM2.icbs | PASSES),
}


@dataclass(frozen=True)
class Cell:
    """A row of a table: a mask and its recovery."""

    mask: pruning.Cell
    recovery: str
    records: Records

    @property
    def key(self) -> str:
        """Name on the command line."""
        return f"{self.mask.key}:{self.recovery}"

    @property
    def file(self) -> str:
        """Name of the record."""
        return f"{self._name}-seed{self.mask.seed}"

    @property
    def _name(self) -> str:
        return self.key.replace(":", "-").replace(", ", "-").replace(" ", "-")

    def read(self) -> dict[str, Any]:
        """Return the results; empty if there are none."""
        return self.records.find(self.file) or {}

    def summary(self) -> dict[str, Any] | None:
        """Return the means over seeds of a row whose seeds were not recorded one by one."""
        return self.records.find(self._name)


def cells(seeds: int, masks: Path, records: Records) -> list[Cell]:
    """Return all cells, each after those that it depends on."""
    found = []
    for name, job in JOBS.items():
        for seed in range(seeds):
            dense = pruning.Cell(name, "1", "dense", seed, masks, job)
            found.append(Cell(dense, "none", records))
            for level in job.levels:
                for method in MASKS:
                    mask = replace(dense, level=level, method=method)
                    found += [Cell(mask, recovery, records) for recovery in _recoveries(name)]
                if name.startswith(("garment", "deit")):
                    mask = replace(dense, level=level, method="magnitude")
                    found += [Cell(mask, rival, records) for rival in RIVALS]
    return found


def _recoveries(name: str) -> list[str]:
    """Return the recoveries of a job."""
    return [*RECOVERIES, *MORE_RECOVERIES.get(name, {})]


def run(cell: Cell, seconds: float) -> None:
    """Run a cell in this process and write its results."""
    task = load_task(cell.mask.job.task, **cell.mask.job.options)
    found: dict[str, Any] = {"mask_seconds": 0.0, "density": 1.0}
    if cell.recovery in RIVALS:
        found |= _train(cell, task, seconds)
    elif cell.mask.method != "dense":
        dense = copy.deepcopy(task.model)
        pruned = make_mask(cell.mask, task)
        state, masks = load_compressed(cell.mask.folder / "model.safetensors")
        task.model.load_state_dict(state)
        found |= {"mask_seconds": mask_seconds(cell.mask), "density": pruned["density"]}
        if cell.recovery != "none":
            found |= _recover(cell, task, dense, masks)
    found["peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    measured = pruning.measure(task)
    found |= {"figures": measured["figures"], "calibration": measured["calibration"]}
    found["test"] = _describe(measured["losses"])
    if (other := FOREIGN.get(cell.mask.name)) is not None:
        options = cell.mask.job.options | {"test_text": other}
        foreign = load_task(cell.mask.job.task, **options)
        assert foreign.losses is not None
        found["foreign"] = _describe(foreign.losses(task.model).tolist())
    cell.records.add(cell.file, found | {"threads": torch.get_num_threads()})


def _describe(losses: list[float]) -> dict[str, Any]:
    """Return the mean loss with its standard error, and few losses one by one."""
    error = stdev(losses) / len(losses) ** 0.5
    found: dict[str, Any] = {"loss": fmean(losses), "error": error}
    return found | ({"losses": losses} if len(losses) <= FEW_LOSSES else {})


def make_mask(mask: pruning.Cell, task: Task) -> dict[str, Any]:
    """Prune by the method of a mask, unless it is there, after the mask from which it starts."""
    if _starts_at_another(mask):
        before = copy.deepcopy(task.model.state_dict())
        make_mask(mask.beside(mask.job.start), task)
        task.model.load_state_dict(before)
    return mask.step("pruned", lambda: pruning.prune_cell(mask, task))


def mask_seconds(mask: pruning.Cell) -> float:
    """Return the processor time of a mask, with that of the mask from which it starts."""
    found = json.loads((mask.folder / "pruned.json").read_text())
    own = float(found.get("processor_seconds", found["seconds"]))
    return own + (mask_seconds(mask.beside(mask.job.start)) if _starts_at_another(mask) else 0)


def _starts_at_another(mask: pruning.Cell) -> bool:
    """Whether a method by iCBS begins at the mask of the job's start."""
    return mask.method in pruning.ICBS and not pruning.starts_alone(mask.method)


def _recover(cell: Cell, task: Task, dense: Any, masks: Any) -> dict[str, Any]:
    """Recover the pruned model of the task."""
    began = time.process_time()
    own = MORE_RECOVERIES.get(cell.mask.name, {})
    settings = (RECOVERIES | own)[cell.recovery]
    settings = settings | MORE.get(cell.mask.name, {}).get(cell.recovery, {})
    result = recover(
        task.model,
        masks,
        cell.mask.samples(task),
        task.loss,
        dense=dense,
        seed=cell.mask.seed,
        progress=False,
        **LIMITS.get(cell.mask.name, {}),
        **settings,
    )
    return {
        "recovery_seconds": time.process_time() - began,
        "recovered": result.summary(),
    }


def _train(cell: Cell, task: Task, seconds: float) -> dict[str, Any]:
    """Train a magnitude mask for the time of the cell to compare with."""
    density = float(cell.mask.level)
    found = train_pruned(
        task.model,
        cell.mask.samples(task),
        task.loss,
        density=density,
        seconds=seconds,
        seed=cell.mask.seed,
        **RIVALS[cell.recovery],
    )
    masks = found.pop("masks")
    kept, size = (sum(int(f(m)) for m in masks.values()) for f in (torch.sum, torch.numel))
    return {
        "density": kept / size,
        "recovery_seconds": seconds,
        "recovered": {"loss": found["heldout"]},
        "updates": found["updates"],
    }


def main(
    only: Annotated[list[str], typer.Option(help="Globs on model:level:mask:recovery.")] = ["*"],  # noqa: B006
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 1,
    masks: Annotated[Path, typer.Option(help="Folder of the masks.")] = Path("runs/pruning"),
    out: Annotated[Path, typer.Option(help="Folder of the cells.")] = Path("runs/recovery"),
    table: Annotated[bool, typer.Option(help="Only write the tables.")] = False,
    again: Annotated[bool, typer.Option(help="Run cells with committed results too.")] = False,
    cell: Annotated[str, typer.Option(help="Run one cell, by the name of its file.")] = "",
    seconds: Annotated[float, typer.Option(help="Time of a rival with --cell.")] = 0.0,
) -> None:
    """Run the cells that are missing, then write the tables."""
    records = Records(RESULTS.with_suffix(".json"), out)
    if cell:
        run(next(c for c in cells(SEEDS, masks, records) if c.file == cell), seconds)
        return
    same = {"--masks": str(masks), "--out": str(out)}
    for one in [] if table else cells(seeds, masks, records):
        done = records.is_new(one.file) if again else bool(one.read())
        if not done and any(fnmatchcase(one.key, pattern) for pattern in only):
            _run_process(one, same)
    records.save()
    write_tables(cells(SEEDS, masks, records), RESULTS.with_suffix(".md"))


def _run_process(cell: Cell, options: dict[str, str]) -> None:
    """Run a cell in a separate process."""
    given = dict(options)
    if cell.recovery in RIVALS:
        equal = replace(cell, mask=cell.mask.beside(EQUAL[0]), recovery=EQUAL[1]).read()
        if not equal:
            print(f"{cell.key} takes the time of {':'.join(EQUAL)}: run that first", flush=True)
            return
        given["--seconds"] = str(equal["mask_seconds"] + equal["recovery_seconds"])
    print(f"{time.strftime('%H:%M:%S')} {cell.key} seed {cell.mask.seed}", flush=True)
    command = [sys.executable, "-m", "benchmarks.recovery", "--cell", cell.file]
    subprocess.run(command + [part for pair in given.items() for part in pair], check=True)


if __name__ == "__main__":
    typer.run(main)
