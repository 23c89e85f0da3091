"""Quality of QAOA against the number of layers, on real blocks, without noise.

    python -m benchmarks.qaoa_quality

Thirty blocks of n = 12 to 20: those of the library, and blocks that the pruner makes of two
classifiers, before the first pass and after ten. Angles are a linear ramp (LR-QAOA, one choice of
slopes for all blocks), or optimised from there. The null is as many random feasible states as
there are shots. The slopes of the default ramp were chosen on blocks of the garment classifier of
n ≤ 16 with another seed, and on those of the library.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from problems import CardinalityQUBO, library
from solvers.readiness.quality import ANGLES, SIGMAS, Quality, quality

RESULTS = Path(__file__).parent / "results"
LAYERS = (1, 2, 4, 8)
#: Sizes of the blocks that are made, by task, and number of blocks in all.
MADE = {"garment": (14, 18, 20), "digits": (12, 16, 20)}
BLOCKS = 30

#: A block: name, problem and status quo.
Case = tuple[str, CardinalityQUBO, Any]


def main(
    shots: Annotated[int, typer.Option(help="Measurements, and random states.")] = 256,
    mixer: Annotated[str, typer.Option(help="complete or ring.")] = "complete",
    evaluations: Annotated[int, typer.Option(help="Evaluations that optimise the angles.")] = 60,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Measure, print and record."""
    cases = [*_library(), *_made()][:BLOCKS]
    run = partial(_measure, shots=shots, mixer=mixer, evaluations=evaluations)
    with ProcessPoolExecutor(jobs) as pool:
        rows = [row for found in pool.map(run, cases) for row in found]
    table = pd.DataFrame(rows)
    _record(table, shots, mixer, evaluations)


def _library() -> Iterator[Case]:
    for name in library.names(max_n=20):
        held = library.load(name)
        yield name, held.problem, held.start


def _made() -> Iterator[Case]:
    from icbs import make_blocks
    from icbs.zoo import load_task

    for task_name, sizes in MADE.items():
        task = load_task(task_name)
        for n in sizes:
            for after in (0, 10):
                made = make_blocks(
                    task.model,
                    task.batches,
                    task.loss,
                    after=after,
                    block_size=n,
                    density=0.1 if task_name == "garment" else 0.3,
                    initial="wanda",
                    seed=1,
                )
                for layer, block in enumerate(made):
                    if block.problem.n == n:
                        name = f"{task_name}-{layer}-{n}-after-{after}"
                        yield name, block.problem, block.start


def _measure(case: Case, *, shots: int, mixer: str, evaluations: int) -> list[dict[str, Any]]:
    name, problem, start = case
    rows = []
    for p in LAYERS:
        for angles in ANGLES:
            found = quality(
                problem,
                p,
                angles=angles,
                mixer=mixer,
                shots=shots,
                evaluations=evaluations,
                initial_state=start,
            )
            rows.append({"block": name, **_row(problem, found)})
    print(f"{name}: {rows[-2]['ratio']:.3f}, {rows[-1]['ratio']:.3f}", flush=True)
    return rows


def _row(problem: CardinalityQUBO, found: Quality) -> dict[str, Any]:
    """Keep what the report shows; energies as shares of the way from random to the optimum."""
    span = found.random_mean - found.optimum
    return {
        "n": problem.n,
        "p": found.p,
        "angles": found.angles,
        "ratio": found.ratio,
        "gap": found.gap,
        "random gap": found.random_gap,
        "optimum": found.optimum_probability,
        "random optimum": found.random_optimum_probability,
        "best": (found.random_mean - found.best) / span,
        "random best": (found.random_mean - found.random_best) / span,
        "cvar": (found.random_mean - found.cvar) / span,
        "random cvar": (found.random_mean - found.random_cvar) / span,
        "sigmas": found.sigmas,
        "above": found.above_random,
        "seconds": found.seconds,
    }


def _record(table: pd.DataFrame, shots: int, mixer: str, evaluations: int) -> None:
    """Write the table, a summary and the picture."""
    blocks = table["block"].nunique()
    lines = [
        "# Quality of QAOA against the number of layers",
        "",
        f"{blocks} blocks of n = {table['n'].min()} to {table['n'].max()} with k = n/2, exact "
        f"simulation without noise, Dicke start, {mixer} mixer; {shots} shots, and {shots} random "
        "feasible states as the null. *Ratio* is (random − ⟨E⟩)/(random − optimum): 0 for random "
        "states, 1 at the optimum. *Ramp*: one linear ramp for all blocks, no optimiser. "
        f"*Optimised*: L-BFGS on the exact expectation from there, {evaluations} evaluations at "
        "most. Medians over the blocks; in brackets the worst.",
        "",
        f"*Above random*: blocks whose mean energy is {SIGMAS:g} standard errors below that of "
        "random states. *Best*: the expected best of all shots, on the scale of the ratio, and "
        "that of as many random states. *Random* in the second table: share of optimal states, "
        "which are many where some weights of a block have no effect.",
        "",
        "| p | angles | ratio | P(optimum) | times random | CVaR 10 % (random) | best (random) | "
        "above random |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (p, angles), rows in table.groupby(["p", "angles"], sort=True):
        times = rows["optimum"] / rows["random optimum"]
        cells = [
            str(p),
            str(angles),
            f"{rows['ratio'].median():.3f} ({rows['ratio'].min():.3f})",
            f"{rows['optimum'].median():.3f} ({rows['optimum'].min():.4f})",
            f"{times.median():,.0f} ({times.min():,.0f})",
            f"{rows['cvar'].median():.3f} ({rows['random cvar'].median():.3f})",
            f"{rows['best'].median():.3f} ({rows['random best'].median():.3f})",
            f"{int(rows['above'].sum())} of {len(rows)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "By n, at the largest p:", "", *_by_size(table)]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "qaoa.md").write_text(text)
    _draw(table, RESULTS / "qaoa.png")


def _by_size(table: pd.DataFrame) -> Iterator[str]:
    yield (
        "| n | blocks | angles | ratio | P(optimum) | random | best | best of random | "
        "gap (status quo: 1) |"
    )
    yield "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    deepest = table[table["p"] == table["p"].max()]
    for (n, angles), rows in deepest.groupby(["n", "angles"], sort=True):
        yield (
            f"| {n} | {len(rows)} | {angles} | {rows['ratio'].median():.3f} | "
            f"{rows['optimum'].median():.3f} | {rows['random optimum'].median():.1e} | "
            f"{rows['best'].median():.4f} | {rows['random best'].median():.4f} | "
            f"{rows['gap'].median():.3f} |"
        )


def _draw(table: pd.DataFrame, path: Path) -> None:
    """Plot ratio and probability of the optimum against p: medians, and a line for each block."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for colour, angles in zip(("C0", "C1"), ANGLES, strict=True):
        chosen = table[table["angles"] == angles]
        for axes, column in zip(panels, ("ratio", "optimum"), strict=True):
            for _, rows in chosen.groupby("block"):
                axes.plot(rows["p"], rows[column], color=colour, alpha=0.15, lw=1)
            middle = chosen.groupby("p")[column].median()
            axes.plot(middle.index, middle, "o-", color=colour, label=angles)
    first = table[(table["p"] == LAYERS[0]) & (table["angles"] == ANGLES[0])]
    panels[0].axhline(0, color="0.4", ls="--", label="random states, mean")
    best = float(np.median(first["random best"]))
    panels[0].axhline(best, color="0.4", ls=":", label="random states, best of the shots")
    chance = float(np.median(first["random optimum"]))
    panels[1].axhline(chance, color="0.4", ls="--", label="random states")
    panels[0].set(ylabel="approximation ratio", ylim=(-0.05, 1.05))
    panels[1].set(ylabel="probability of the optimum", yscale="log")
    for axes in panels:
        axes.set(xscale="log", xlabel="layers p")
        axes.set_xticks(LAYERS, [str(p) for p in LAYERS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
