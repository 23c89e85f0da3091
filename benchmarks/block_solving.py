"""The default solver on blocks of the demo, compared with brute force and a plain annealer.

    python -m benchmarks.block_solving

One core. Times are those of the whole call in the pruner and, for the comparison, until it
reports a state at least as good as the final state of the plain annealer. Both include building
the problem from the factors; the time of the plain annealer does not include its matrix.
Gap = (E - best known) / (E of the initial state - best known).
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from benchmarks.plain_annealer import plain_anneal
from icbs import Block, make_blocks
from icbs.zoo import load_task
from problems import CardinalityQUBO
from solvers import solve

RESULTS = Path(__file__).parent / "results" / "block_solving.md"


def main(
    size: Annotated[int, typer.Option(help="Variables of a block.")] = 1024,
    repeats: Annotated[int, typer.Option(help="Timed runs of the default solver.")] = 7,
    reference: Annotated[float, typer.Option(help="Seconds for the best-known energy.")] = 3.0,
) -> None:
    """Measure, print and record."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    lines = [
        "# Solving the demo's blocks",
        "",
        f"Garment classifier, density 0.1, N = 200, one core; the default solver and a plain "
        f"annealer (O(n) per proposal, 121 temperatures), alternating; median of {repeats} runs. "
        f"Best known: the best of all runs and of {reference:g} s of search. `ms until` is the "
        "time until a state at least as good as the plain annealer's final state.",
        "",
        "| layer | passes before | n | ms | gap | ms until | plain annealer, ms | its gap | "
        "speed-up | vectorised, ms | speed-up |",
        "| --- " + "| ---: " * 10 + "|",
    ]
    ratios: list[tuple[float, float]] = []
    for after, block in _blocks(size):
        row, pair = _compare(after, block, repeats, reference)
        print(row, flush=True)
        lines.append(row)
        ratios.append(pair)
    equal, tried = _brute_force()
    plain, vectorised = zip(*ratios, strict=True)
    lines += [
        "",
        f"Speed-up, median over blocks: {median(plain):.0f} (minimum {min(plain):.0f}); relative "
        f"to the plain annealer with vectorised sums {median(vectorised):.0f} "
        f"(minimum {min(vectorised):.0f}).",
        "",
        f"Against brute force at n = 22: the optimum on {equal} of {tried} blocks.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text)


def _blocks(size: int, stages: tuple[int, ...] = (0, 10)) -> list[tuple[int, Block]]:
    task = load_task("garment")
    settings = {"block_size": size, "curvature_samples": 200, "initial": "wanda"}
    found = []
    for after in stages:
        blocks = make_blocks(task.model, task.batches, task.loss, after=after, **settings)
        found += [(after, block) for block in blocks]
    return found


def _compare(
    after: int, block: Block, repeats: int, reference: float
) -> tuple[str, tuple[float, float]]:
    problem, start = block.problem, block.start
    solve(problem, "anneal", seed=0, initial_state=start, callback=lambda *_: False)
    slow: dict[bool, list[float]] = {False: [], True: []}
    plain_energies = []
    for vectorised in slow:
        plain_anneal(problem, start, vectorised=vectorised)
        for seed in range(3):
            began = time.perf_counter()
            state = plain_anneal(problem, start, seed, vectorised=vectorised)
            slow[vectorised].append(time.perf_counter() - began)
            plain_energies.append(problem.energy(state))
    target = median(plain_energies)
    whole, until, energies = [], [], []
    for seed in range(repeats):
        began = time.perf_counter()
        energies.append(solve(problem, "anneal", seed=seed, initial_state=start).energy)
        whole.append(time.perf_counter() - began)
        until.append(_until(problem, start, seed, target))
    long = solve(problem, "anneal", seed=0, initial_state=start, time_limit=reference)
    best = min(long.energy, *energies, *plain_energies)

    def gap(energy: float) -> float:
        return (energy - best) / -best if best else 0.0

    plain, vectorised = median(slow[False]), median(slow[True])
    ratios = plain / median(until), vectorised / median(until)
    cells = [
        block.layer.name,
        str(after),
        str(problem.n),
        f"{1000 * median(whole):.1f}",
        f"{gap(median(energies)):.1e}",
        f"{1000 * median(until):.1f}",
        f"{1000 * plain:.0f}",
        f"{gap(target):.1e}",
        f"{ratios[0]:.0f}",
        f"{1000 * vectorised:.0f}",
        f"{ratios[1]:.0f}",
    ]
    return f"| {' | '.join(cells)} |", ratios


def _until(problem: CardinalityQUBO, start: np.ndarray, seed: int, target: float) -> float:
    """Return the seconds until a state of at most the target energy is reported, or infinity."""
    seconds = math.inf
    enough = target + 1e-9 * abs(target)

    def look(elapsed: float, energy: float) -> bool:
        nonlocal seconds
        if energy <= enough:
            seconds = min(seconds, elapsed)
        return energy <= enough

    answer = solve(problem, "anneal", seed=seed, initial_state=start, callback=look)
    if seconds == math.inf and answer.energy <= enough:
        seconds = answer.timing.total  # the final polish does not call back
    return seconds


def _brute_force() -> tuple[int, int]:
    """Count the small blocks on which the default solver finds the optimum."""
    equal, tried = 0, 0
    for _, block in _blocks(22, stages=(0, 3, 6, 9)):
        exact = solve(block.problem, "exhaustive")
        found = solve(block.problem, "anneal", seed=0, initial_state=block.start)
        scale = np.abs(block.problem.Q).sum()
        equal += found.energy <= exact.energy + 1e-9 * scale
        tried += 1
    return equal, tried


if __name__ == "__main__":
    typer.run(main)
