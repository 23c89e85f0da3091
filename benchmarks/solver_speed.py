"""Solution quality over time of the default solver and its peers, on real pruning blocks.

    python -m benchmarks.solver_speed                     # all of it: about half an hour
    python -m benchmarks.solver_speed --sizes 256 --peer-blocks 2

Blocks are built from the garment classifier: each layer, densities 0.05 to 0.5, empirical and
Monte Carlo Fisher, at the magnitude mask and after some passes. In addition there are problems
with known optimum (``problems.planted``). One core; alternating.

Gap = (E - best known) / (E of the initial state - best known). The best known energy is the best
of all runs, of a longer search, and of the exact solver if it is fast enough. For a planted
problem the initial state is that of the smallest linear terms. The time of a state is taken
before its energy is evaluated in float64, which delays later states.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.contenders import State, Trace, anneal, peers, seconds_to
from problems import CardinalityQUBO
from problems.planted import planted, tiled
from solvers import solve

RESULTS = Path(__file__).parent / "results"
GAPS = (1e-2, 1e-4, 1e-6)
TARGETS = {1024: 1e-3, 2048: 4e-3, 4096: 12e-3}
"""Target: seconds within which 90 % of the blocks reach the smallest gap."""


@dataclass
class Case:
    """A problem with its initial state, and all runs on it."""

    name: str
    family: str
    problem: CardinalityQUBO
    start: State
    best: float = np.inf
    whole: float = np.nan
    """Median seconds of a call, including building the model."""
    product: float = np.nan
    """Median seconds of the matrix product that forms Q."""
    runs: dict[str, list[Trace]] = field(default_factory=dict)

    def add(self, name: str, trace: Trace) -> None:
        """Record a run."""
        self.runs.setdefault(name, []).append(trace)
        self.best = min(self.best, *(energy for _, energy in trace))

    def seconds(self, name: str, gap: float) -> list[float]:
        """Return the seconds to a gap for each run; infinite if it was not reached."""
        decrease = max(self.problem.energy(self.start) - self.best, 0.0)
        rounding = 1e-9 * (abs(self.best) + decrease)
        return [seconds_to(t, self.best + gap * decrease + rounding) for t in self.runs[name]]


def main(
    sizes: Annotated[list[int], typer.Option(help="Variables of a block.")] = [  # noqa: B006
        64,
        256,
        1024,
        2048,
        4096,
    ],
    seeds: Annotated[int, typer.Option(help="Runs of the default solver on a block.")] = 5,
    peer_blocks: Annotated[int, typer.Option(help="Real blocks of a size for the peers.")] = 6,
    reference: Annotated[float, typer.Option(help="Seconds for the best-known energy.")] = 1.0,
    note: Annotated[str, typer.Option(help="On the machine, for the record.")] = "",
) -> None:
    """Measure, print and record."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    small = planted(32, 16, 8)
    for contender, _ in peers().values():
        contender(small.problem, small.x, 0)  # compiles and loads libraries
    lines = ["# The speed of the default solver", "", *__doc__.split("\n\n")[2:], note]
    cases: list[Case] = []
    for n in sizes:
        chosen = [*_real(n), *_planted(n)]
        shown = set(np.linspace(0, len(chosen) - 4, peer_blocks).astype(int))
        shown |= {len(chosen) - 3, len(chosen) - 1}
        for number, case in enumerate(chosen):
            _run(case, seeds, reference, with_peers=number in shown)
            cases.append(case)
            print(n, case.name, [f"{1e3 * median(case.seconds('anneal', g)):.2f}" for g in GAPS])
    lines += _targets(cases)
    lines += _against_peers(cases)
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    (RESULTS / "solver_speed.md").write_text(text)
    _draw(cases, RESULTS / "solver_speed.png")


def _real(n: int) -> Iterator[Case]:
    """Yield the blocks of this size, for layers that are large enough."""
    from icbs import make_blocks
    from icbs.zoo import load_task

    task = load_task("garment")
    for density in (0.05, 0.1, 0.2, 0.5):
        for curvature in ("empirical", "monte-carlo"):
            for after in (0, 8):
                blocks = make_blocks(
                    task.model, task.batches, task.loss, after=after, block_size=n,
                    density=density, curvature=curvature, curvature_samples=200,
                )  # fmt: skip
                for layer, block in enumerate(blocks, start=1):
                    if block.problem.n == n:
                        name = f"L{layer} d{density} {curvature} after {after}"
                        yield Case(name, f"layer {layer}", block.problem, block.start)


def _planted(n: int) -> Iterator[Case]:
    for family, found in (
        ("planted", [planted(n, n // 2, 200, seed=s) for s in range(2)]),
        ("tiled", [tiled(n, n // 2, seed=s) for s in range(2)] if n <= 1024 else []),
    ):
        for seed, plant in enumerate(found):
            start = np.zeros(n, np.uint8)
            start[np.argsort(plant.problem.linear)[: n // 2]] = 1
            yield Case(f"{family} {seed}", family, plant.problem, start, plant.energy)


def _run(case: Case, seeds: int, reference: float, with_peers: bool) -> None:
    problem, start = case.problem, case.start
    anneal(problem, start, 0)
    for seed in range(seeds):
        case.add("anneal", anneal(problem, start, seed))
    case.whole = _median_seconds(lambda: solve(problem, "anneal", seed=0, initial_state=start))
    A = problem.A
    case.product = _median_seconds(lambda: A.T @ A)
    if not case.family.startswith("planted"):
        long = solve(problem, "anneal", seed=99, initial_state=start, time_limit=reference)
        case.best = min(case.best, long.energy)
    if with_peers:
        for name, (contender, largest) in peers().items():
            if problem.n <= largest:
                case.add(name, contender(problem, start, 0))


def _median_seconds(call: Callable[[], object], turns: int = 5) -> float:
    times = []
    for _ in range(turns):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


def _quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


def _ms(seconds: float) -> str:
    return "–" if seconds == np.inf else f"{1e3 * seconds:.2f}"


def _targets(cases: list[Case]) -> Iterator[str]:
    """Yield a table of the default solver's times, over all real blocks, by size and family."""
    yield from ("", "## The default solver", "")
    yield "Milliseconds of search to a gap: median over blocks / 90 % of blocks / slowest block."
    yield "A block's time is the median over seeds; – if at least half of them did not reach it."
    yield "*In time*: share of the blocks within 1e-6 after 1 ms at n = 1024, 4 ms at 2048, 12 ms"
    yield "at 4096. *In products*: the whole call, including building the model, in units of the"
    yield "product AᵀA."
    yield ""
    yield (
        "| n | family | blocks | "
        + " | ".join(f"gap {gap:g}" for gap in GAPS)
        + " | to the end | in time | build and solve, in products |"
    )
    yield "| ---: | --- | ---: |" + " ---: |" * (len(GAPS) + 3)
    groups: dict[tuple[int, str], list[Case]] = {}
    for case in cases:
        real = case.family.startswith("layer")
        for family in (case.family, "all real blocks") if real else (case.family,):
            groups.setdefault((case.problem.n, family), []).append(case)
    for (n, family), members in sorted(groups.items()):
        cells = []
        for gap in GAPS:
            times = [median(case.seconds("anneal", gap)) for case in members]
            cells.append(" / ".join(_ms(_quantile(times, share)) for share in (0.5, 0.9, 1.0)))
        ends = [median(trace[-1][0] for trace in case.runs["anneal"]) for case in members]
        cells.append(" / ".join(_ms(_quantile(ends, share)) for share in (0.5, 0.9, 1.0)))
        target = TARGETS.get(n, np.inf)
        within = np.mean([median(case.seconds("anneal", GAPS[-1])) <= target for case in members])
        cells.append(f"{within:.0%}" if n in TARGETS else "")
        ratios = [case.whole / case.product for case in members]
        cells.append(" / ".join(f"{_quantile(ratios, share):.2f}" for share in (0.5, 0.9, 1.0)))
        yield f"| {n} | {family} | {len(members)} | " + " | ".join(cells) + " |"


def _against_peers(cases: list[Case]) -> Iterator[str]:
    """Yield a table of the peers: share of blocks within each gap, and relative times."""
    yield from ("", "## Comparison with peers", "")
    yield "Share of the runs that reached a gap, and in brackets the ratio of their time to that"
    yield "of the default solver (median over blocks)."
    yield ""
    yield "| n | family | solver | blocks | " + " | ".join(f"gap {gap:g}" for gap in GAPS) + " |"
    yield "| ---: | --- | --- | ---: | ---: | ---: | ---: |"
    sets: dict[tuple[int, str], list[Case]] = {}
    for case in cases:
        if len(case.runs) > 1:
            family = "real" if case.family.startswith("layer") else case.family
            sets.setdefault((case.problem.n, family), []).append(case)
    for (n, family), members in sorted(sets.items()):
        for name in members[0].runs:
            cells = []
            for gap in GAPS:
                times = [t for case in members for t in case.seconds(name, gap)]
                share = np.isfinite(times).mean()
                ratios = [
                    median(case.seconds(name, gap)) / median(case.seconds("anneal", gap))
                    for case in members
                    if np.isfinite(median(case.seconds(name, gap)))
                ]
                later = f" ({median(ratios):.3g}×)" if ratios and name != "anneal" else ""
                cells.append(f"{share:.0%}{later}")
            yield f"| {n} | {family} | {name} | {len(members)} | " + " | ".join(cells) + " |"


def _draw(cases: list[Case], path: Path) -> None:
    """Plot the share of runs within 1e-4 over time, for sizes with at least four peers."""
    from matplotlib.figure import Figure

    sizes = sorted({case.problem.n for case in cases if len(case.runs) > 4}) or [64]
    figure = Figure(figsize=(4.5 * len(sizes), 4), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for n, axes in zip(sizes, panels, strict=True):
        members = [
            case
            for case in cases
            if case.problem.n == n and len(case.runs) > 1 and case.family.startswith("layer")
        ]
        names = list(dict.fromkeys(name for case in members for name in case.runs))
        for name in names:
            times = sorted(
                t for case in members if name in case.runs for t in case.seconds(name, GAPS[1])
            )
            reached = [t for t in times if np.isfinite(t)]
            shares = np.arange(1, len(reached) + 1) / max(len(times), 1)
            axes.step([1e3 * t for t in reached], shares, where="post", label=name)
        axes.set(xscale="log", xlabel="milliseconds", title=f"n = {n}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"share of the runs within a gap of {GAPS[1]:g}")
    panels[-1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
