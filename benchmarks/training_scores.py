"""Masks by scores from training against magnitude, and lottery tickets against their control.

    python -m benchmarks.training_scores           # all missing seeds, then the tables
    python -m benchmarks.training_scores --table   # the tables only

Each seed of each part is a file, so that an interrupted benchmark can be continued.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.pruning_quality import RESULTS
from icbs import Pruner, Trajectory
from icbs.lottery import find_ticket
from icbs.zoo import deit, fashion_mnist, garment
from icbs.zoo.image_tasks import image_task
from icbs.zoo.task import Task
from icbs.zoo.training import fit
from problems.files import write_text

DENSITIES = (0.3, 0.1, 0.05, 0.02)
AVERAGES = ("uniform", "linear", "exponential")
SCORES = {
    "magnitude": "magnitude of the last weights",
    **{f"average {kind}": f"magnitude of the average, {kind}" for kind in AVERAGES},
    "stability uniform": "the same, over the spread, uniform",
    "gradients snip": "SNIP, summed over training",
    "gradients momentum": "SNIP with momentum 0.9",
}
ROUNDS, SHARE, LAST_SHARE = 6, 0.2, 0.1
STEPS = garment.EPOCHS * -(-60_000 // garment.RECIPE.batch) // 3


def main(
    cells: Annotated[Path, typer.Option(help="Folder of the measured seeds.")] = Path(
        "runs/training_scores"
    ),
    table: Annotated[bool, typer.Option("--table", help="Write the tables only.")] = False,
) -> None:
    """Measure all seeds."""
    cells.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[Callable[[int], list[dict[str, Any]]], int]] = {
        "classifier": (lambda seed: masks(*classifier(seed)), 5),
        "transformer": (lambda seed: masks(*transformer(seed)), 3),
        "tickets": (tickets, 5),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for name, (measure, seeds) in parts.items():
        for seed in range(seeds):
            path = cells / f"{name}-{seed}.json"
            if not path.exists() and not table:
                write_text(path, json.dumps(measure(seed), indent=1) + "\n")
                print(path, flush=True)
            if path.exists():
                found.setdefault(name, []).extend(json.loads(path.read_text()))
    write_text(RESULTS / "training_scores.md", "\n".join(lines(found)) + "\n")


def recorded(
    model: nn.Module, train: Callable[[Callable[[int, float], object]], object]
) -> dict[str, Trajectory]:
    """Train a model, and record its trajectory in each way."""
    ways: dict[str, dict[str, Any]] = {kind: {"average": kind} for kind in AVERAGES}
    ways |= {kind: {"gradients": kind, "spread": False} for kind in ("snip", "momentum")}
    found = {name: Trajectory(model, **options) for name, options in ways.items()}
    scored = [found["snip"], found["momentum"]]
    hook = register_optimizer_step_pre_hook(lambda *_: [t.observe() for t in scored] and None)
    train(lambda *_: [t.update() for t in found.values()])
    hook.remove()
    return found


def classifier(seed: int) -> tuple[Task, dict[str, Trajectory]]:
    """Train the garment classifier."""
    data, test = fashion_mnist.load("train"), fashion_mnist.load("t10k")
    model = garment.classifier()
    found = recorded(
        model,
        lambda report: garment.RECIPE.train(
            model, *data, seed=seed, epochs=garment.EPOCHS, report=report
        ),
    )
    return image_task("garment", model, [data], *test), found


def transformer(seed: int, epochs: int = 3) -> tuple[Task, dict[str, Trajectory]]:
    """Train the small vision transformer."""
    data = deit.square(fashion_mnist.load("train"))
    test = deit.square(fashion_mnist.load("t10k"))
    model = deit.classifier()
    found = recorded(
        model, lambda report: deit.train(model, *data, seed=seed, epochs=epochs, report=report)
    )
    few = (data[0][:1024], data[1][:1024])
    return image_task("deit", model, [few], *test), found


def masks(task: Task, trajectories: dict[str, Trajectory]) -> list[dict[str, Any]]:
    """Evaluate the masks of each score at each density."""
    dense = copy.deepcopy(task.model.state_dict())
    rows = [{"score": "dense", "density": 1.0, **task.evaluate(task.model)}]
    with tempfile.TemporaryDirectory() as folder:
        for name, trajectory in trajectories.items():
            trajectory.save(Path(folder) / name)
        for score in SCORES:
            kind, _, way = score.partition(" ")
            more = {"trajectory": str(Path(folder) / way), "trajectory_score": kind} if way else {}
            start = "trajectory" if way else "magnitude"
            for density in DENSITIES:
                task.model.load_state_dict(dense)
                pruner = Pruner(density=density, initial=start, passes=0, **more)
                pruner.prune(task.model, task.batches, task.loss, progress=False)
                figures = task.evaluate(task.model)
                rows.append({"score": score, "density": density, **figures})
    return rows


def tickets(seed: int) -> list[dict[str, Any]]:
    """Search for a ticket of the classifier, with a third of the usual steps of training."""
    images, labels = fashion_mnist.load("train")
    test = fashion_mnist.load("t10k")
    task = image_task("garment", garment.classifier(), [(images, labels)], *test)
    recipe = garment.RECIPE
    count = STEPS * recipe.batch

    def train(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
        order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(4)])
        chosen = order[:count]
        fit(
            model, images[chosen], labels[chosen], optimizer, decay,
            batch=recipe.batch, epochs=1, generator=generator,
        )  # fmt: skip

    torch.manual_seed(seed)
    model = garment.classifier()
    found = find_ticket(
        model, train, task.evaluate, rounds=ROUNDS, share=SHARE, shares={"4": LAST_SHARE},
        seed=1000 * (seed + 1),
    )  # fmt: skip
    return [
        {
            "density": row.density,
            "ticket": row.figures["accuracy"],
            "control": None if row.control is None else row.control["accuracy"],
        }
        for row in found.rounds
    ]


def lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Write the tables."""
    text = [
        "# Scores from training, and lottery tickets",
        "",
        "Written by `python -m benchmarks.training_scores`. Means over seeds ± standard errors. "
        "Test accuracy in %.",
    ]
    for name, title in TITLES.items():
        if name in found:
            text += ["", f"## {title}", "", *_masks_table(found[name])]
    if "tickets" in found:
        text += ["", "## Lottery tickets", "", *_tickets_table(found["tickets"])]
    return text


TITLES = {
    "classifier": "Garment classifier: initial masks, no training after pruning",
    "transformer": "DeiT architecture on Fashion-MNIST, three epochs: the same",
}


def _masks_table(rows: list[dict[str, Any]]) -> list[str]:
    dense = [row["accuracy"] for row in rows if row["score"] == "dense"]
    text = [
        f"{len(dense)} seeds, a record after each epoch; dense {_mean(dense)}. Differences from "
        "magnitude with the same seed in brackets.",
        "",
        "| score | " + " | ".join(map(str, DENSITIES)) + " |",
        "| --- |" + " ---: |" * len(DENSITIES),
    ]
    for score, label in SCORES.items():
        cells = []
        for density in DENSITIES:
            own, base = (
                [r["accuracy"] for r in rows if (r["score"], r["density"]) == (s, density)]
                for s in (score, "magnitude")
            )
            more = "" if score == "magnitude" else f" ({_mean(np.subtract(own, base), sign='+')})"
            cells.append(_mean(own) + more)
        text.append(f"| {label} | " + " | ".join(cells) + " |")
    return text


def _tickets_table(rows: list[dict[str, Any]]) -> list[str]:
    densities = sorted({row["density"] for row in rows}, reverse=True)
    seeds = sum(row["density"] == 1 for row in rows)
    text = [
        f"Garment classifier, {seeds} seeds, {STEPS} steps of training (a third of the usual), "
        f"{SHARE:.0%} of the weights pruned in each round ({LAST_SHARE:.0%} in the last layer) by "
        "magnitude, rewound to the initialisation. Control: a new initialisation under the same "
        "mask.",
        "",
        "| density | ticket | control | difference |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for density in densities:
        own = [row for row in rows if row["density"] == density]
        ticket = [row["ticket"] for row in own]
        cells = [f"{density:.3f}", _mean(ticket), "", ""]
        if own[0]["control"] is not None:
            control = [row["control"] for row in own]
            cells[2:] = [_mean(control), _mean(np.subtract(ticket, control), sign="+")]
        text.append("| " + " | ".join(cells) + " |")
    return text


def _mean(values: Any, sign: str = "") -> str:
    values = 100 * np.asarray(values)
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{values.mean():{sign}.1f} ± {error:.1f}"


if __name__ == "__main__":
    typer.run(main)
