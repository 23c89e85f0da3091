"""Quality of masks with different settings: the garment classifier at one density.

    python -m benchmarks.pruning_quality

All contenders prune the same trained model with the same training samples; test samples are used
for evaluation only. Writes a table, and a figure of loss and accuracy over time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.straight_through import straight_through
from icbs import Pruner
from icbs.cli.config_file import Settings
from icbs.report.evaluations import Evaluator
from icbs.report.figure import Curve, draw
from icbs.zoo import Task, load_task

RESULTS = Path(__file__).parent / "results"
PAPER = Path(__file__).parents[1] / "configs" / "paper.yaml"
BASELINES = ("random", "magnitude", "gradient", "wanda")


def contenders(passes: int) -> dict[str, dict[str, Any]]:
    """Return settings by name; most differ from the defaults in one setting."""
    paper = Settings.read(PAPER, {"pruner.passes": passes}).pruner.model_dump(exclude_unset=True)
    shipped = {"density": 0.1, "initial": "wanda", "passes": passes}
    return {
        "shipped": shipped,
        "shipped, three times as long": shipped | {"passes": 3 * passes},
        "from magnitude": shipped | {"initial": "magnitude"},
        "blocks of 1024": shipped | {"block_size": 1024},
        "no curvature weight (κ = 1)": shipped | {"curvature_weight": 1.0},
        "no damping": shipped | {"damping": 1.0},
        "labels of the data in the Fisher": shipped | {"curvature": "empirical"},
        "signed selection": shipped | {"selection": "taylor"},
        "no acceptance test": shipped | {"acceptance": "off"},
        "no couplings (diagonal solver)": shipped | {"solver": "diagonal"},
        "the paper's settings": paper,
        "the paper's settings, with acceptance": paper | {"acceptance": "block"},
    }


def main(
    passes: Annotated[int, typer.Option(help="Passes of a contender.")] = 100,
    epochs: Annotated[int, typer.Option(help="Epochs of straight-through training.")] = 8,
) -> None:
    """Run all contenders."""
    task = load_task("garment")
    dense = {name: value.clone() for name, value in task.model.state_dict().items()}
    figures = {"dense": task.evaluate(task.model)}
    rows = [_row("dense", figures["dense"])]
    for name in BASELINES:
        task.model.load_state_dict(dense)
        Pruner(density=0.1, initial=name, passes=0).prune(task.model, task.batches, task.loss)
        figures[name] = task.evaluate(task.model)
        rows.append(_row(f"initial mask: {name}", figures[name]))
    curves = []
    for name, settings in contenders(passes).items():
        task.model.load_state_dict(dense)
        curve, row = _prune(task, name, settings)
        print(row, flush=True)
        curves.append(curve)
        rows.append(row)
    for length in (epochs // 4, epochs):
        task.model.load_state_dict(dense)
        rows.append(_straight_through(task, length))
    lines = [
        "# Quality of masks",
        "",
        f"Garment classifier, density 0.1, mask only, {torch.get_num_threads()} threads; "
        f"{passes} passes unless stated otherwise. Held-out loss: on training samples not used "
        "for gradients.",
        "",
        "| contender | test accuracy | test loss | held-out loss | seconds | blocks | kept |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "pruning_quality.md").write_text(text)
    shown = [
        c for c in curves if c.name in ("shipped, three times as long", "the paper's settings")
    ]
    draw(shown, figures, RESULTS / "pruning_quality.png")


def _prune(task: Task, name: str, settings: dict[str, Any]) -> tuple[Curve, str]:
    evaluator = Evaluator(task.evaluate, 10)
    result = Pruner(**settings).prune(task.model, task.batches, task.loss, callback=evaluator)
    final = evaluator.add(result.passes, result.seconds, task.model)
    facts = result.summary()
    more = [f"{result.loss:.4f}", f"{facts['seconds']:.0f}", str(facts["blocks"]),
            f"{facts['accepted']:.0%}"]  # fmt: skip
    return Curve(name, evaluator.rows, result.history), _row(name, final.figures, more)


def _straight_through(task: Task, epochs: int) -> str:
    images, labels = next(iter(task.batches))
    began = time.perf_counter()
    straight_through(task.model, images, labels, density=0.1, epochs=epochs)
    seconds = time.perf_counter() - began
    name = f"straight-through mask training, {epochs} epochs"
    return _row(name, task.evaluate(task.model), ["", f"{seconds:.0f}", "", ""])


def _row(name: str, figures: dict[str, float], more: list[str] | None = None) -> str:
    cells = [name, f"{figures['accuracy']:.2%}", f"{figures['loss']:.4f}", *(more or [""] * 4)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
