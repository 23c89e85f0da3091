"""Time and memory of the default solver as functions of n, up to a whole layer.

    python -m benchmarks.scaling                 # to n = 400,000 with m = 256: needs 2 GB
    python -m benchmarks.scaling --largest 65536

A *sweep* considers every variable once: the gradient from the factors (O(mn)), and pair steps.
The peak memory is that of the process so far.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from problems import CardinalityQUBO
from problems.planted import planted
from solvers import solve
from solvers.anneal.model import KernelModel
from solvers.anneal.sweep import sweeps

RESULTS = Path(__file__).parent / "results"


def main(
    rank: Annotated[int, typer.Option(help="Rows of A.")] = 256,
    largest: Annotated[int, typer.Option(help="Largest n.")] = 400_000,
    turns: Annotated[int, typer.Option(help="Timed sweeps at each n.")] = 5,
) -> None:
    """Measure, print and record."""
    sizes = [n for n in (1 << p for p in range(10, 19)) if n < largest] + [largest]
    lines = [
        "# Scaling with n",
        "",
        *__doc__.split("\n\n")[2].splitlines(),
        "",
        f"Convex problems of rank {rank} with a planted optimum, factored, k = n/2. Sweeps on one "
        "core; whole solves from the smallest linear terms on two.",
        "",
        "| n | ms per sweep | ns per variable | s to the end | gap | factors, MB | peak, MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    points = []
    for n in sizes:
        found = planted(n, n // 2, rank)
        seconds = _sweep_seconds(found.problem, turns)
        began = time.perf_counter()
        answer = solve(found.problem, "anneal", seed=0)
        whole = time.perf_counter() - began
        start = np.zeros(n, np.uint8)
        start[np.argsort(found.problem.linear)[: n // 2]] = 1
        gap = (answer.energy - found.energy) / (found.problem.energy(start) - found.energy)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        points.append((n, seconds))
        row = (
            f"| {n} | {1e3 * seconds:.3f} | {1e9 * seconds / n:.1f} | {whole:.3f} | {gap:.0e} | "
            f"{4e-6 * rank * n:.0f} | {peak:.0f} |"
        )
        print(row, flush=True)
        lines.append(row)
    slope = np.polyfit(*np.log(np.array(points)).T, 1)[0]
    lines += ["", f"Fitted slope of a sweep's time: n^{slope:.2f}."]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "scaling.md").write_text(text)
    _draw(points, float(slope), rank, RESULTS / "scaling.png")


def _sweep_seconds(problem: CardinalityQUBO, turns: int) -> float:
    """Return the median time of one gradient and one round of pair steps."""
    model = KernelModel.of(problem)
    times = []
    for _ in range(turns + 1):
        state = np.zeros(problem.n, np.uint8)
        state[np.argsort(problem.linear)[: problem.k]] = 1
        x = model.start(state)
        point = model.point(x)
        began = time.perf_counter()
        sweeps(model.quadratic, point, model.layout.group_lanes, 1, True)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def _draw(points: list[tuple[int, float]], slope: float, rank: int, path: Path) -> None:
    from matplotlib.figure import Figure

    sizes, seconds = np.array(points).T
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(sizes, seconds, "o", label=f"sweep, m = {rank}")
    fit = np.exp(np.polyval(np.polyfit(np.log(sizes), np.log(seconds), 1), np.log(sizes)))
    axes.plot(sizes, fit, "-", color="0.6", label=f"n^{slope:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="n", ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
