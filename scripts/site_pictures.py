"""Draw the figures of the documentation from real runs: ``make pictures``.

The garment classifier (784-512-512-10, Fashion-MNIST) at density 0.1, with the default settings.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from icbs import Pruner, Result, make_blocks
from icbs.zoo import Task, load_task
from solvers import solve

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
DENSITY = 0.1
BLUE, RED, GREY = "#3465a4", "#c4423f", "#888888"


@contextmanager
def picture(name: str, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure and write it as SVG; equal figures give equal bytes."""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        FigureCanvasSVG(figure).print_svg(FOLDER / f"{name}.svg", metadata={"Date": None})


def flow() -> None:
    """Draw the steps of a pass."""
    boxes = [
        ("samples", "a batch of\ntraining data"),
        ("look", "gradient and\ncurvature"),
        ("blocks", "a few thousand weights\na layer, as a QUBO"),
        ("solve", "any solver,\nall layers at once"),
        ("judge", "loss on\nheld-out samples"),
    ]
    with picture("flow", 9.2, 2.3) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 5 * 2.0), ylim=(-0.75, 1.25))
        axes.axis("off")
        for i, (title, text) in enumerate(boxes):
            color = GREY if i == 0 else BLUE
            box = FancyBboxPatch(
                (2 * i + 0.12, 0), 1.72, 1.0,
                boxstyle="round,pad=0.02,rounding_size=0.12", fc=color + "22", ec=color,
            )  # fmt: skip
            axes.add_patch(box)
            axes.text(
                2 * i + 0.98,
                0.74,
                title,
                ha="center",
                va="center",
                weight="bold",
                size=11,
            )
            axes.text(2 * i + 0.98, 0.32, text, ha="center", va="center", size=7.8)
            if i:
                arrow = FancyArrowPatch(
                    (2 * i - 0.14, 0.5), (2 * i + 0.12, 0.5),
                    arrowstyle="-|>", mutation_scale=12, color="black",
                )  # fmt: skip
                axes.add_patch(arrow)
        back = FancyArrowPatch(
            (8.98, -0.04), (2.98, -0.04),
            connectionstyle="arc3,rad=-0.12", arrowstyle="-|>", mutation_scale=12, color="black",
        )  # fmt: skip
        axes.add_patch(back)
        axes.text(6, -0.68, "masks: moves that lower the loss stay, others are undone; next pass",
                  ha="center", size=8.5)  # fmt: skip


def one_block(task: Task) -> None:
    """Draw the couplings and local fields of a real block."""
    block = make_blocks(
        task.model,
        task.batches,
        task.loss,
        after=5,
        density=DENSITY,
        block_size=128,
    )[2]
    problem, start = block.problem, block.start
    fields = problem.fields(start)
    order = np.argsort(fields)
    couplings = problem.Q - np.diag(np.diag(problem.Q))
    reach = np.quantile(np.abs(couplings), 0.999)
    with picture("block", 9.2, 3.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
        image = left.imshow(
            couplings[np.ix_(order, order)],
            cmap="RdBu_r",
            vmin=-reach,
            vmax=reach,
        )
        left.set_title("couplings between two weights", size=11)
        left.set(xlabel="weight", ylabel="weight")
        figure.colorbar(image, ax=left)
        colors = np.where(start[order] == 1, RED, BLUE)
        right.bar(np.arange(problem.n), fields[order], color=colors, width=1.0)
        right.set_title("cost of pruning a weight, the others fixed", size=11)
        right.set(xlabel="weight")
        for color, text in ((RED, "pruned now"), (BLUE, "kept now")):
            right.bar(0, 0, color=color, label=text)
        right.legend(frameon=False)


def couplings(task: Task) -> None:
    """Draw the decrease found without couplings, as a share of that found with them."""
    sizes = [32, 64, 128, 256, 512]
    shares: list[list[float]] = []
    for size in sizes:
        blocks = make_blocks(
            task.model,
            task.batches,
            task.loss,
            after=5,
            density=DENSITY,
            block_size=size,
        )
        found = []
        for block in blocks:
            best = solve(block.problem, "anneal", seed=0, num_reads=5).energy
            alone = solve(block.problem, "diagonal").energy
            found.append(alone / best)
        shares.append(found)
    floor = -1.0  # what raises the loss by more is drawn here, with its number
    with picture("couplings", 6.4, 3.2) as figure:
        axes = figure.subplots()
        axes.axhline(1, color="black", lw=1, label="anneal: linear terms and couplings")
        for layer, marker in enumerate("os^"):
            values = np.array([row[layer] for row in shares])
            axes.plot(sizes, values.clip(floor), marker=marker, color=f"C{layer}",
                      label=f"diagonal: linear terms alone, layer {layer + 1}")  # fmt: skip
            for size, value in zip(sizes, values, strict=True):
                if value < floor:
                    axes.annotate(f"{value:.0f}", (size, floor), (0, 8),
                                  textcoords="offset points", ha="center", size=8)  # fmt: skip
        axes.axhline(0, color=GREY, lw=0.8, ls=":")
        axes.set(xscale="log", xlabel="weights in the block", ylim=(floor - 0.15, 1.2),
                 ylabel="predicted decrease,\nshare of the best found")  # fmt: skip
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8, loc="center left")


def prune(task: Task, initial: str, passes: int) -> tuple[Result, list[float]]:
    """Prune a copy of the model; return the result and the held-out loss of each pass."""
    model, losses = copy.deepcopy(task.model), []

    def watch(progress: Any) -> None:
        losses.append(progress.loss)

    pruner = Pruner(density=DENSITY, initial=initial, passes=passes, seed=0)
    return pruner.prune(model, task.batches, task.loss, callback=watch), losses


def passes(runs: dict[str, tuple[Result, list[float]]]) -> None:
    """Draw the held-out loss over passes, and predicted and actual changes."""
    with picture("passes", 9.2, 3.3) as figure:
        left, right = figure.subplots(1, 2)
        for i, (name, (_, losses)) in enumerate(runs.items()):
            left.plot(losses, color=(RED, BLUE)[i], label=f"from {name}")
        left.set(
            xlabel="passes",
            ylabel="loss on held-out samples",
            ylim=(0.35, None),
        )
        left.legend(frameon=False)
        rows = [row for result, _ in runs.values() for row in result.history if row.moved]
        for accepted, color, label in (
            (True, BLUE, "kept"),
            (False, RED, "undone"),
        ):
            own = [row for row in rows if row.accepted is accepted]
            right.scatter([row.predicted for row in own], [row.actual for row in own],
                          s=12, color=color, alpha=0.7, label=label)  # fmt: skip
        low = min(row.predicted for row in rows)
        right.plot(
            [low, -1e-5],
            [low, -1e-5],
            color="black",
            lw=1,
            label="as predicted",
        )
        right.set_xscale("symlog", linthresh=1e-3)
        right.set_yscale("symlog", linthresh=1e-3)
        right.axhline(0, color=GREY, lw=0.8)
        right.set(
            xlabel="predicted change of the loss",
            ylabel="change on held-out samples",
        )
        right.legend(frameon=False)


def pixels(task: Task, masks: dict[str, dict[str, Any]]) -> None:
    """Draw the weights kept at each pixel of the first layer."""
    counts = {name: mask["0"].sum(0).view(28, 28).numpy() for name, mask in masks.items()}
    most = max(count.max() for count in counts.values())
    with picture("pixels", 8.0, 3.0) as figure:
        axes = figure.subplots(1, len(counts))
        for own, (name, count) in zip(axes, counts.items(), strict=True):
            image = own.imshow(count, vmin=0, vmax=most, cmap="viridis")
            own.set_title(name)
            own.axis("off")
        figure.colorbar(image, ax=axes, label="weights kept", shrink=0.8)


def main() -> None:
    """Draw all figures."""
    FOLDER.mkdir(exist_ok=True)
    task = load_task("garment")
    flow()
    one_block(task)
    couplings(task)
    start = prune(task, "magnitude", 0)[0].masks
    runs = {name: prune(task, name, 30) for name in ("magnitude", "wanda")}
    passes(runs)
    pixels(
        task,
        {"magnitude": start, "iCBS from magnitude": runs["magnitude"][0].masks},
    )


if __name__ == "__main__":
    main()
