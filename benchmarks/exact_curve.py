"""How far optimality can be proved: seconds against n on the demo's own blocks.

    python -m benchmarks.exact_curve                 # blocks of the garment classifier
    python -m benchmarks.exact_curve --blocks DIR    # NAME_nSIZE.npz files instead

``exact`` and ``scip`` run on one thread, ``cpsat`` on all cores. A solver is dropped from a
series of blocks (one layer at one time) after the first size at which it proves nothing. The
table of all runs is that of ``solvers.compare``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from problems import CardinalityQUBO
from solvers import available, compare
from solvers.cpus import usable_cpus

RESULTS = Path(__file__).parent / "results"
SIZES = (32, 64, 128, 256, 512, 1024, 2048)
PROVERS: dict[str, dict[str, Any]] = {
    "exact": {},
    "cpsat": {},
    "cpsat, squares alone": {"solver": "cpsat", "formulation": "squares", "relax": False},
    "cpsat, products alone": {
        "solver": "cpsat",
        "formulation": "products",
        "rlt": True,
        "relax": False,
    },
    "scip": {},
    "scip, squares alone": {"solver": "scip", "formulation": "squares", "relax": False},
    "scip, products alone": {"solver": "scip", "formulation": "products", "relax": False},
}

#: (layer, moment) → the blocks by size, as :func:`solvers.compare` takes them.
Blocks = dict[tuple[str, str], dict[int, dict[str, Any]]]


def main(
    blocks: Annotated[Path | None, typer.Option(help="Folder of NAME_nSIZE.npz files.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds for each proof.")] = 60.0,
    largest: Annotated[int, typer.Option(help="Largest n.")] = SIZES[-1],
    pattern: Annotated[str, typer.Option(help="Names to take from the folder.")] = "",
) -> None:
    """Measure, print and record."""
    sizes = [n for n in SIZES if n <= largest]
    series = _from_folder(blocks, sizes, pattern) if blocks else _from_task(sizes)
    known = {
        label: options
        for label, options in PROVERS.items()
        if options.get("solver", label) in available()
    }
    runs = measure(series, sizes, known, limit)
    _record(runs, list(known), limit)


def measure(
    series: Blocks, sizes: list[int], known: dict[str, dict[str, Any]], limit: float
) -> pd.DataFrame:
    """Return the ends of all runs, with ``layer``, ``moment`` and ``gap`` (NaN if proved)."""
    frames = []
    for label, options in known.items():
        alive = dict(series)
        for n in sizes:
            chosen = {key: held[n] for key, held in alive.items() if n in held}
            if not chosen:
                continue
            frame = compare(
                {" | ".join(key): problem for key, problem in chosen.items()},
                {label: options},
                seeds=1,
                time_limit=limit,
                cores=usable_cpus() if label.startswith("cpsat") else 1,
                jobs=1,
                restart=False,
            )
            ends = frame[frame["row"] == "end"]
            frames.append(ends)
            proved = set(ends.loc[ends["known"] == "optimal", "problem"])
            alive = {key: held for key, held in alive.items() if " | ".join(key) in proved}
            print(label, n, f"{len(proved)} of {len(ends)} proved", flush=True)
    runs = pd.concat(frames, ignore_index=True)
    runs[["layer", "moment"]] = runs["problem"].str.split(" | ", regex=False, expand=True)
    left = (runs["energy"] - runs["bound"]) / (runs["start_energy"] - runs["energy"])
    return runs.assign(gap=left.fillna(np.inf).where(runs["known"] != "optimal"))


def _from_task(sizes: list[int], stages: tuple[int, ...] = (0, 10)) -> Blocks:
    """Return the blocks that the pruner makes of the garment classifier."""
    from icbs import make_blocks
    from icbs.zoo import load_task

    task = load_task("garment")
    settings = {"density": 0.1, "curvature_samples": 200, "initial": "wanda"}
    found: Blocks = {}
    for after in stages:
        for n in sizes:
            made = make_blocks(
                task.model, task.batches, task.loss, after=after, block_size=n, **settings
            )
            for layer, block in enumerate(made, start=1):
                if block.problem.n == n:
                    held = found.setdefault((f"layer {layer}", f"after {after} passes"), {})
                    held[n] = {"problem": block.problem, "start": block.start}
    return found


def _from_folder(folder: Path, sizes: list[int], pattern: str) -> Blocks:
    """Return the problems of a folder; ``NAME_nSIZE.x0.npy`` is the status quo."""
    found: Blocks = {}
    for path in sorted(folder.glob("*.npz")):
        match = re.fullmatch(r"(.+)_n(\d+)", path.stem)
        if match and int(match[2]) in sizes and pattern in match[1]:
            layer, _, moment = match[1].partition("_")
            held = found.setdefault((f"layer {layer.removeprefix('L')}", moment), {})
            start = np.load(path.with_suffix(".x0.npy"))
            held[int(match[2])] = {"problem": CardinalityQUBO.load(path), "start": start}
    return found


def _cell(run: Any, limit: float) -> str:
    if np.isnan(run.gap):
        return f"{run.seconds:.3f}" if run.seconds < 10 else f"{run.seconds:.1f}"
    return f"> {limit:g} (gap {run.gap:.1%})" if run.gap < 10 else f"> {limit:g} (open)"


def _record(runs: pd.DataFrame, names: list[str], limit: float) -> None:
    """Write the table, a summary, and the curves."""
    lines = [
        "# How far optimality can be proved",
        "",
        f"Seconds to a proof on blocks of the garment classifier (density 0.1, N = 200), "
        f"compilation aside, at most {limit:g} s; {usable_cpus()} cores, of which `exact` and "
        "`scip` use one. A gap is what the bound leaves open, as a share of the decrease "
        "achieved. Nothing is shown after the first size that a solver could not prove. `cpsat` "
        "and `scip` are the defaults: the variables that the convex relaxation decides are "
        "fixed, and squares state the rest; *alone* is the backend without that reduction.",
        "",
        "| layer | moment | n | " + " | ".join(names) + " |",
        "| --- | --- | ---: | " + "---: | " * len(names),
    ]
    for key, block in runs.groupby(["moment", "layer", "n"]):
        cells = {run.solver: _cell(run, limit) for run in block.itertuples()}
        shown = " | ".join(cells.get(name, "") for name in names)
        lines.append(f"| {key[1]} | {key[0]} | {key[2]} | {shown} |")
    lines += ["", *_summary(runs)]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "exact_curve.md").write_text(text)
    _draw(runs, names, RESULTS / "exact_curve.png")


def _summary(runs: pd.DataFrame) -> Iterator[str]:
    """Say at each n how many blocks were proved, and how much sooner ``exact`` was."""
    yield "| n | solver | proved | median s (proved) | `exact` sooner, median (least) |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    base = runs[runs["solver"] == "exact"].set_index(["problem", "n"])["seconds"]
    for (n, name), group in runs.groupby(["n", "solver"], sort=True):
        proved = group[group["gap"].isna()]
        ratios = group.set_index(["problem", "n"])["seconds"] / base
        at_least = "≥ " if len(proved) < len(group) else ""
        seconds = f"{proved['seconds'].median():.3f}" if len(proved) else "–"
        yield (
            f"| {n} | {name} | {len(proved)} of {len(group)} | {seconds} | "
            f"{at_least}{ratios.median():.0f} ({ratios.min():.0f}) |"
        )


def _draw(runs: pd.DataFrame, names: list[str], path: Path) -> None:
    """Plot seconds against n: the first layer and the deeper ones apart; hollow = no proof."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for first, axes in zip((True, False), panels, strict=True):
        shown = runs[(runs["layer"] == "layer 1") == first]
        for colour, name in enumerate(names):
            for _, curve in shown[shown["solver"] == name].groupby("problem"):
                curve = curve.sort_values("n")
                axes.plot(curve["n"], curve["seconds"], color=f"C{colour}", alpha=0.5)
                for run in curve.itertuples():
                    face = f"C{colour}" if np.isnan(run.gap) else "white"
                    axes.plot(run.n, run.seconds, "o", color=f"C{colour}", mfc=face, ms=5)
            axes.plot([], [], "o-", color=f"C{colour}", label=name)
        title = "first layer" if first else "deeper layers"
        axes.set(xscale="log", yscale="log", xlabel="n", title=title)
        axes.set_xticks(SIZES, [str(n) for n in SIZES])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("seconds to a proof (hollow: none)")
    panels[1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
