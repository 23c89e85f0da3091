"""The recorded comparison of solvers on the library of pruning problems.

    python -m benchmarks.comparison                    # everything: about an hour on one core
    python -m benchmarks.comparison --pattern garment  # some of the problems

Two campaigns of ``solvers.compare``, both resumable: all solvers for a second with several seeds,
and the exact ones for ten seconds with one seed. Writes ``results/comparison.md``, its pictures
and ``results/comparison_report.html``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from problems import library
from solvers import solve
from solvers.comparison import compare
from solvers.comparison.measures import (
    AT_BEST,
    ECDF_TARGETS,
    Results,
    ecdf,
    gaps_at,
    lowest_integral,
    primal_integral,
    proofs,
    results,
    summary_rows,
    time_to_target,
)
from solvers.comparison.measures.overview import percent
from solvers.comparison.report.page import write_report
from solvers.comparison.report.style import Style, styles

RESULTS = Path(__file__).parent / "results"
SOLVERS = ("anneal", "cpsat", "exact", "neal", "random", "scip", "tabu")
PROVERS = ("exact", "cpsat", "scip")
LARGE = 256
ENUMERATED = 24


def main(
    out: Annotated[Path, typer.Option(help="Folder of the two campaigns.")] = Path(
        "runs/comparison"
    ),
    pattern: Annotated[str, typer.Option(help="Part of the names of the problems.")] = "",
    seeds: Annotated[int, typer.Option(help="Seeds of the short campaign.")] = 3,
    seconds: Annotated[float, typer.Option(help="Time limit of the short campaign.")] = 1.0,
    proof_seconds: Annotated[float, typer.Option(help="Time limit of the exact solvers.")] = 10.0,
    jobs: Annotated[int, typer.Option(help="Concurrent runs, each on one core.")] = 1,
) -> None:
    """Run what is missing, and write the results."""
    problems = [f"library:{name}" for name in library.names() if pattern in name]
    common: dict[str, Any] = {"cores": 1, "jobs": jobs, "progress": _tell}
    began = time.perf_counter()
    table = compare(problems, SOLVERS, seeds=seeds, time_limit=seconds, out=out / "short", **common)
    wall = time.perf_counter() - began
    long = compare(
        problems, PROVERS, seeds=1, time_limit=proof_seconds, out=out / "proofs", **common
    )
    short, proved = results(table), results(long)
    title = "Solvers on the library of pruning problems"
    write_report(table, RESULTS / "comparison_report.html", title=title)
    text = "\n".join(_page(table, short, proved, wall * jobs)) + "\n"
    (RESULTS / "comparison.md").write_text(text, encoding="utf-8")
    _draw(short, proved, RESULTS)
    print(text)


def _tell(progress: Any) -> None:
    if progress.done % 50 == 0:
        print(f"{progress.done} of {progress.total}, {progress.remaining:.0f} s left", flush=True)


def _page(table: pd.DataFrame, short: Results, proved: Results, wall: float) -> Iterator[str]:
    ends = table[table["row"] == "end"]
    limit = short.runs["time_limit"].iloc[0]
    yield "# Comparison of solvers"
    yield ""
    yield (
        f"{len(short.problems)} problems of [the library](../reference/library.md), "
        f"{ends['seed'].nunique()} seeds, {limit:g} s each on one core of "
        f"{', '.join(sorted(set(ends['machine']) - {''}))}. Every solver that takes a start got "
        "the status quo; compilation is not counted; gaps count from the status quo (1) to the "
        "best value known (0). Made by `python -m benchmarks.comparison`; [the interactive "
        "report](comparison_report.html) has a page per problem. Definitions: [measures]"
        "(../reference/measures.md)."
    )
    yield ""
    head, *rows = summary_rows(short)
    yield from _table(head, rows)
    yield ""
    for name, caption in (
        ("ecdf", "Share of (problem, target, seed) reached within t"),
        ("anytime", "Mean gap against time"),
        ("proofs", "Share of the problems proved within t"),
    ):
        yield f"![{caption}](comparison_{name}.png)"
        yield ""
    yield from _at_best(short)
    yield from _integrals(short)
    yield from _proofs(proved)
    yield from _overhead(ends, wall)


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _at_best(found: Results) -> Iterator[str]:
    """Report the default solver's share at the best known value, and its misses."""
    runs = found.runs[found.runs["solver"] == "anneal"]
    hit = runs["gap"] <= AT_BEST
    limit = runs["time_limit"].iloc[0]
    yield f"## `anneal` at the best known value within {limit:g} s"
    yield ""
    yield f"{percent(hit.mean())} of {len(runs)} (problem, seed)."
    yield ""
    if hit.all():
        return
    yield "The others:"
    yield ""
    rows = []
    for problem, missed in runs[~hit].groupby("problem"):
        others = found.runs[(found.runs["problem"] == problem) & (found.runs["gap"] <= AT_BEST)]
        named = ", ".join(sorted(others["solver"].unique()))
        rows.append([
            f"`{problem}`", f"{len(missed)} of {(runs['problem'] == problem).sum()}",
            f"{missed['gap'].max():.1e}", named or "none (the library's own, longer search)",
            str(_undecided(str(problem))),
        ])  # fmt: skip
    yield from _table(["problem", "seeds", "largest gap", "at the best value", "undecided"], rows)
    usual = np.median(
        [
            _undecided(name)
            for name in found.problems.loc[found.problems["n"] > ENUMERATED, "problem"]
            if name not in set(runs.loc[~hit, "problem"])
        ]
    )
    yield ""
    yield (
        "*Undecided*: variables that the convex relaxation leaves between 0 and 1, and the search "
        f"has to decide; {usual:.0f} in the median of the other problems of n > {ENUMERATED}."
    )
    yield ""


def _undecided(name: str) -> int:
    """Return the number of variables that the convex relaxation leaves between 0 and 1."""
    entry = library.load(name.removeprefix("library:"))
    found = solve(entry.problem, "anneal", time_limit=0.05, initial_state=entry.start)
    return int(found.info["fractional"])


def _integrals(found: Results) -> Iterator[str]:
    """Report where the default solver has the lowest primal integral."""
    lowest = lowest_integral(found)
    large = lowest[lowest["n"] >= LARGE]
    own = large[large["solver"] == "anneal"]
    yield f"## Lowest primal integral, n ≥ {LARGE}"
    yield ""
    yield f"`anneal` on {percent(own['lowest'].mean())} of {len(own)} problems."
    lost = own.loc[~own["lowest"], "problem"]
    if not len(lost):
        yield ""
        return
    yield "Where another solver has it:"
    yield ""
    rows = []
    for problem in lost:
        block = large[large["problem"] == problem].set_index("solver")["primal_integral"]
        best = block.idxmin()
        rows.append([f"`{problem}`", str(best), f"{block[best]:.2e}", f"{block['anneal']:.2e}"])
    yield from _table(["problem", "lowest", "its integral", "`anneal`"], rows)
    yield ""


def _proofs(found: Results) -> Iterator[str]:
    """Report how many problems each exact solver proves, and those that only one proves."""
    frame = proofs(found)
    sets = {
        name: set(frame.loc[(frame["solver"] == name) & frame["proved"], "problem"])
        for name in PROVERS
    }
    others = set().union(*(sets[name] for name in PROVERS[1:]))
    limit, count = found.runs["time_limit"].iloc[0], len(found.problems)
    yield f"## Proofs within {limit:g} s"
    yield ""
    yield (
        ", ".join(f"`{name}` proves {len(held)}" for name, held in sets.items())
        + f" of {count}; `cpsat` and `scip` together {len(others)}. "
        + f"`exact` alone proves {len(sets['exact'] - others)}: {_names(sets['exact'] - others)}. "
        + f"Only `cpsat` or `scip`: {_names(others - sets['exact'])}. "
        + f"None: {_names(set(frame['problem']) - others - sets['exact'])}."
    )
    yield ""


def _names(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _overhead(ends: pd.DataFrame, wall: float) -> Iterator[str]:
    """Report the campaign's own time, if it was carried out in one go."""
    spent = ends["seconds"].sum()
    yield "## Overhead"
    yield ""
    yield (
        f"The solvers took {spent:.0f} s, the campaign {wall:.0f} s: {wall / spent - 1:.1%} more "
        "(reading the problems, starting processes, recomputing energies)."
        if wall > spent
        else "The campaign was resumed, so its overhead is not known."
    )


def _draw(short: Results, proved: Results, folder: Path) -> None:
    from matplotlib.figure import Figure

    looks = {style.name: style for style in styles(sorted({*SOLVERS, *PROVERS}))}
    curves = ecdf(time_to_target(short, ECDF_TARGETS))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    ranked = primal_integral(short).groupby(short.runs["solver"]).mean().sort_values().index
    for name in ranked:
        curve = curves[curves["solver"] == name]
        x = np.r_[1e-4, np.maximum(curve["seconds"], 1e-4), short.runs["time_limit"].iloc[0]]
        y = np.r_[0.0, curve["share"], curve["share"].iloc[-1] if len(curve) else 0.0]
        axes.step(x, y, where="post", label=name, **_line(looks[name]))
    axes.set(xscale="log", xlabel="seconds", ylabel="share of (problem, target, seed)", ylim=(0, 1))
    _finish(figure, axes, folder / "comparison_ecdf.png")

    times = np.geomspace(1e-4, short.runs["time_limit"].iloc[0], 80)
    gaps = np.minimum(gaps_at(short, times.tolist()), 1.0)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in ranked:
        mean = gaps[(short.runs["solver"] == name).to_numpy()].mean(axis=0)
        axes.plot(times, mean, label=name, **_line(looks[name]))
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="mean gap, at most 1")
    _finish(figure, axes, folder / "comparison_anytime.png")

    frame = proofs(proved)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in PROVERS:
        own = np.sort(frame.loc[frame["solver"] == name, "seconds"])
        done = own[np.isfinite(own)]
        x = np.r_[1e-4, np.maximum(done, 1e-4), proved.runs["time_limit"].iloc[0]]
        y = np.r_[0, np.arange(1, len(done) + 1), len(done)] / len(own)
        axes.step(x, y, where="post", label=name, **_line(looks[name]))
    axes.set(xscale="log", xlabel="seconds", ylabel="share of problems proved", ylim=(0, 1))
    _finish(figure, axes, folder / "comparison_proofs.png")


def _line(style: Style) -> dict[str, Any]:
    dash = "-" if not style.dash else (0, tuple(d / 2 for d in style.dash))
    return {"color": style.colour, "linestyle": dash, "lw": 1.8}


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
