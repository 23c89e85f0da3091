"""Time of proofs of optimality as a function of n, on blocks of the demo.

    python -m benchmarks.exact_curve                 # blocks of the garment classifier
    python -m benchmarks.exact_curve --blocks DIR    # NAME_nSIZE.npz files instead

``exact`` runs on one thread, the others on all cores. In a series of blocks (one layer after the
same number of passes) a solver is not run after the first size that it can't prove.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from problems import CardinalityQUBO
from solvers import solve

RESULTS = Path(__file__).parent / "results"
SIZES = (32, 64, 128, 256, 512, 1024, 2048)

#: Function of a problem, a time limit and an initial state; returns seconds, energy and bound.
Prover = Callable[[CardinalityQUBO, float, np.ndarray], tuple[float, float, float]]


@dataclass(frozen=True)
class Series:
    """Blocks of one layer after some passes: size → problem and initial state."""

    layer: str
    moment: str
    blocks: dict[int, tuple[CardinalityQUBO, np.ndarray]]


@dataclass(frozen=True)
class Result:
    """One run; ``gap`` is relative to the decrease from the initial state, None if proved."""

    seconds: float
    decrease: float
    gap: float | None


def prover(name: str, **options: object) -> Prover:
    """Return one of the project's solvers, with a warm start from the initial state."""

    def prove(
        problem: CardinalityQUBO, limit: float, start: np.ndarray
    ) -> tuple[float, float, float]:
        begin = time.perf_counter()
        answer = solve(problem, name, time_limit=limit, initial_state=start, seed=0, **options)
        bound = -np.inf if answer.bound is None else answer.bound
        seconds = time.perf_counter() - begin
        return seconds, answer.energy, answer.energy if answer.is_optimal else bound

    return prove


def provers() -> dict[str, Prover]:
    """Return the solvers to compare, by name."""
    alone = {"formulation": "products", "rlt": True, "relax": False}
    known = {
        "exact": prover("exact"),
        "cpsat": prover("cpsat"),
        "cpsat, squares alone": prover("cpsat", formulation="squares", relax=False),
        "cpsat, products alone": prover("cpsat", **alone),
    }
    if importlib.util.find_spec("pyscipopt"):
        from benchmarks.scip_peer import solve_with_scip

        known["scip"] = solve_with_scip
    return known


def main(
    blocks: Annotated[Path | None, typer.Option(help="Folder of NAME_nSIZE.npz files.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds for each proof.")] = 60.0,
    largest: Annotated[int, typer.Option(help="Largest n.")] = SIZES[-1],
    pattern: Annotated[str, typer.Option(help="Names to take from the folder.")] = "",
) -> None:
    """Measure, print and record."""
    sizes = [n for n in SIZES if n <= largest]
    all_series = list(_from_folder(blocks, sizes, pattern) if blocks else _from_task(sizes))
    known = provers()
    _warm_up(known)
    table: dict[tuple[str, str, int, str], Result] = {}
    for series in all_series:
        for name, prove in known.items():
            for n, (problem, start) in sorted(series.blocks.items()):
                result = _measure(prove, problem, limit, start)
                table[series.layer, series.moment, n, name] = result
                print(series.layer, series.moment, n, name, _cell(result, limit), flush=True)
                if result.gap is not None:
                    break
    _record(table, list(known), limit)


def _measure(
    prove: Prover, problem: CardinalityQUBO, limit: float, start: np.ndarray, turns: int = 3
) -> Result:
    """Measure a proof; short ones are repeated, with the median as the result."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < turns and sum(seconds) < 1.0):
        spent, energy, bound = prove(problem, limit, start)
        seconds.append(spent)
    decrease = problem.energy(start) - energy
    gap = (energy - bound) / max(decrease, 1e-300)
    return Result(median(seconds), decrease, None if gap <= 1e-5 else gap)


def _warm_up(known: dict[str, Prover]) -> None:
    rng = np.random.default_rng(0)
    A, linear = rng.normal(size=(8, 30)).astype(np.float32), rng.normal(size=30)
    problem = CardinalityQUBO.from_factors(A, linear, 15)
    for prove in known.values():
        prove(problem, 60.0, np.repeat([1, 0], 15).astype(np.uint8))


def _from_task(sizes: list[int], stages: tuple[int, ...] = (0, 10)) -> Iterator[Series]:
    """Yield blocks of the garment classifier."""
    from icbs import make_blocks
    from icbs.zoo import load_task

    task = load_task("garment")
    settings = {"density": 0.1, "curvature_samples": 200, "initial": "wanda"}
    for after in stages:
        made = {
            n: make_blocks(
                task.model, task.batches, task.loss, after=after, block_size=n, **settings
            )
            for n in sizes
        }
        for layer in range(3):
            found = {n: made[n][layer] for n in sizes}
            yield Series(
                f"layer {layer + 1}",
                f"after {after} passes",
                {n: (b.problem, b.start) for n, b in found.items() if b.problem.n == n},
            )


def _from_folder(folder: Path, sizes: list[int], pattern: str) -> Iterator[Series]:
    """Yield the problems of a folder; ``NAME_nSIZE.x0.npy`` is the initial state."""
    found: dict[str, dict[int, tuple[CardinalityQUBO, np.ndarray]]] = {}
    for path in sorted(folder.glob("*.npz")):
        match = re.fullmatch(r"(.+)_n(\d+)", path.stem)
        if match and int(match[2]) in sizes and pattern in match[1]:
            pair = CardinalityQUBO.load(path), np.load(path.with_suffix(".x0.npy"))
            found.setdefault(match[1], {})[int(match[2])] = pair
    for name, blocks in found.items():
        layer, _, moment = name.partition("_")
        yield Series(f"layer {layer.removeprefix('L')}", moment, blocks)


def _cell(result: Result | None, limit: float) -> str:
    if result is None:
        return ""
    if result.gap is None:
        return f"{result.seconds:.3f}" if result.seconds < 10 else f"{result.seconds:.1f}"
    return f"> {limit:g} (gap {result.gap:.1%})" if result.gap < 10 else f"> {limit:g} (open)"


def _record(table: dict[tuple[str, str, int, str], Result], names: list[str], limit: float) -> None:
    """Write the table, a summary, and the curves."""
    keys = list(dict.fromkeys(key[:3] for key in table))
    lines = [
        "# Proofs of optimality",
        "",
        f"Seconds to a proof on blocks of the garment classifier (density 0.1, N = 200), "
        f"without compilation, at most {limit:g} s; {os.cpu_count()} cores, of which `exact` uses "
        "one. The gap is the difference to the bound, as a share of the decrease achieved. "
        "Sizes after the first that a solver could not prove are not shown. `cpsat` has default "
        "options: the variables that the convex relaxation decides are fixed, and the others are "
        "formulated with squares; *alone* is CP-SAT without that reduction.",
        "",
        "| layer | moment | n | " + " | ".join(names) + " |",
        "| --- | --- | ---: | " + "---: | " * len(names),
    ]
    for key in keys:
        cells = [_cell(table.get((*key, name)), limit) for name in names]
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | " + " | ".join(cells) + " |")
    lines += ["", *_summary(table, names, limit)]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "exact_curve.md").write_text(text)
    _draw(table, names, RESULTS / "exact_curve.png")


def _summary(
    table: dict[tuple[str, str, int, str], Result], names: list[str], limit: float
) -> Iterator[str]:
    """Yield a table with the number of proved blocks and the speed-up of ``exact`` for each n."""
    yield "| n | solver | proved | median s (proved) | speed-up of `exact`, median (minimum) |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    for n in sorted({key[2] for key in table}):
        for name in names:
            runs = {key: run for key, run in table.items() if key[2:] == (n, name)}
            if not runs:
                continue
            seconds = [run.seconds for run in runs.values() if run.gap is None]
            ratios = [run.seconds / table[*key[:3], "exact"].seconds for key, run in runs.items()]
            at_least = "≥ " if len(seconds) < len(runs) else ""
            yield (
                f"| {n} | {name} | {len(seconds)} of {len(runs)} | "
                f"{f'{median(seconds):.3f}' if seconds else '–'} | "
                f"{at_least}{median(ratios):.0f} ({min(ratios):.0f}) |"
            )


def _draw(table: dict[tuple[str, str, int, str], Result], names: list[str], path: Path) -> None:
    """Plot seconds over n, in separate panels for the first layer and deeper layers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for first, axes in zip((True, False), panels, strict=True):
        for colour, name in enumerate(names):
            for layer, moment in dict.fromkeys(key[:2] for key in table):
                if (layer == "layer 1") is not first:
                    continue
                runs = sorted(
                    (key[2], run)
                    for key, run in table.items()
                    if key[:2] == (layer, moment) and key[3] == name
                )
                sizes, seconds = [n for n, _ in runs], [run.seconds for _, run in runs]
                axes.plot(sizes, seconds, color=f"C{colour}", alpha=0.5)
                for n, run in runs:
                    face = f"C{colour}" if run.gap is None else "white"
                    axes.plot(n, run.seconds, "o", color=f"C{colour}", mfc=face, ms=5)
            axes.plot([], [], "o-", color=f"C{colour}", label=name)
        axes.set(xscale="log", yscale="log", xlabel="n", title=_TITLES[first])
        axes.set_xticks(SIZES, [str(n) for n in SIZES])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("seconds to a proof (hollow: none)")
    panels[1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


_TITLES = {True: "first layer", False: "deeper layers"}

if __name__ == "__main__":
    typer.run(main)
