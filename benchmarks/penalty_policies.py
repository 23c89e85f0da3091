"""Share of feasible samples and gap of each penalty policy, on real blocks.

    python -m benchmarks.penalty_policies

Blocks of the garment classifier at density 0.1, from the magnitude mask and after some passes,
are solved by the backends without native cardinality. Each policy is measured alone (no raise,
no repair) and with default options (raises and repair). The gap is the share of the best known
decrease that is missed; the initial state has energy 0.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import typer

from icbs import make_blocks
from icbs.zoo import load_task
from problems import CardinalityQUBO
from problems.penalty import POLICIES, penalty_for
from solvers import Solution, solve

RESULTS = Path(__file__).parent / "results"
SAMPLERS = ("neal", "tabu", "steepest")


def main(
    sizes: Annotated[list[int], typer.Option("--size", help="Variables of a block.")] = [64, 256],  # noqa: B006
    reads: Annotated[int, typer.Option(help="Samples of a solve.")] = 10,
    passes: Annotated[int, typer.Option(help="Passes before the later blocks.")] = 10,
) -> None:
    """Measure all policies with all samplers."""
    task = load_task("garment")
    lines = [
        "# Penalty policies on real blocks",
        "",
        "Garment classifier, density 0.1, one block of each layer at the magnitude mask and after "
        f"{passes} passes (k = n/2); {reads} reads, default options otherwise. *Strength* is the "
        "mean of λ over that of `exchange`. *Alone*: no raise and no repair; share of feasible "
        "samples (mean over blocks) and gap of the best of them (median and worst; – if a block "
        "has none). *Default*: with raises and repair. Gaps are shares of the best known "
        "decrease, found by any solver here or by `anneal` with 20 reads.",
    ]
    for n in sizes:
        problems = [
            block.problem
            for after in (0, passes)
            for block in make_blocks(
                task.model, task.batches, task.loss, after=after, density=0.1, block_size=n, seed=0
            )
        ]
        lines += ["", f"## n = {n}", "", *_table(problems, reads)]
        print("\n".join(lines), flush=True)
        (RESULTS / "penalty_policies.md").write_text("\n".join(lines) + "\n")


def _table(problems: list[CardinalityQUBO], reads: int) -> list[str]:
    best = [solve(p, "anneal", seed=0, num_reads=20).energy for p in problems]
    runs: dict[tuple[str, str], tuple[list[Solution], list[Solution], float]] = {}
    for sampler in SAMPLERS:
        for policy in POLICIES:
            common: dict[str, Any] = {"seed": 1, "num_reads": reads, "penalty": policy}
            alone = [solve(p, sampler, raises=0, repair=False, **common) for p in problems]
            begin = time.perf_counter()
            shipped = [solve(p, sampler, **common) for p in problems]
            runs[sampler, policy] = alone, shipped, time.perf_counter() - begin
            for i, answers in enumerate(zip(alone, shipped, strict=True)):
                best[i] = min(best[i], *(answer.energy for answer in answers))
    rows = [
        "| sampler | policy | strength | feasible alone | gap alone | gap by default | "
        "raises | seconds per block |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    exchange = [penalty_for(p, "exchange").strength[0] for p in problems]
    for (sampler, policy), (alone, shipped, seconds) in runs.items():
        strengths = [penalty_for(p, policy).strength[0] for p in problems]
        ratio = mean(s / e for s, e in zip(strengths, exchange, strict=True))
        share = mean(a.info["penalty"]["feasible_share"] for a in alone)
        raises = mean(len(a.info["penalty"]["strengths"]) - 1 for a in shipped)
        cells = [
            sampler,
            policy,
            f"{ratio:.3g}",
            f"{share:.0%}",
            _gaps(alone, best),
            _gaps(shipped, best),
            f"{raises:.1f}",
            f"{seconds / len(problems):.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _gaps(answers: list[Solution], best: list[float]) -> str:
    gaps = [
        (answer.energy - b) / abs(b)
        for answer, b in zip(answers, best, strict=True)
        if answer.x is not None
    ]
    if not gaps:
        return "–"
    missing = " –" if len(gaps) < len(answers) else ""
    return f"{median(gaps):.2%} ({max(gaps):.2%}){missing}"


if __name__ == "__main__":
    typer.run(main)
