"""The log of generation, as a page of results."""

from __future__ import annotations

from pathlib import Path

from problems.files import write_text
from problems.library.catalogue import DATA, index, table
from problems.library.tables import bound_cell
from scripts.library.fidelity import LARGEST_DEVIATION, SEEDS
from scripts.library.rounding import LEVELS

PAGE = Path("benchmarks/results/library.md")

TEXT = """# The library of problems

How `problems.library` was made (`python -m scripts.library make`, `solve` and `log`). [The
library](../reference/library.md) says what it holds, and how to use it.

{count} problems, {size:.2f} MB in the package. Coefficients were rounded to integers: the largest
entry of a factor has as many *bits*, out of {levels}, as are needed to keep the deviation *at the
best states* below {allowed:g}. That is the largest difference between energies before and after
rounding, over the best energy's depth, at the best states of {seeds} searches before and {seeds}
after rounding, at the best state known, and at those of their neighbours that are at least half as
deep. *Rank correlation* is Spearman's, between the energies of 2000 random feasible states before
and after rounding (half of the states at random, half with a tenth of the status quo dealt out
again); *deviation* is the root mean square difference of those energies, over their standard
deviation. Lowest rank correlation: {lowest:.5f}; largest deviation at the best states: {worst:.1e}.

Best values: `exhaustive` up to n = 24; beyond that `anneal` from ten seeds (every second one from
the status quo), then `exact` from the best of them: for 3 to 5 s each, and again for 60 s each
where that gave no proof. *Found by* is the first run that reached the value. Bounds are of `exact`;
energies are multiples of a power of two, to which bounds are rounded up. {proved} of {count} are
proved.

{head}
{rows}

## Runs

| run | task | passes before | settings |
| --- | --- | ---: | --- |
{runs}

Dense weights, by SHA-256: {weights}. Versions: {versions}.
"""


def write_log() -> None:
    """Write what the index and the files say."""
    records, rows = index(), []
    table_rows = table()
    for row in table_rows:
        size = (DATA / f"{row['name']}.npz").stat().st_size / 1024
        rows.append(
            f"| `{row['name']}` | {size:.1f} | {row['bits']} | {row['deviation_at_best']:.1e} | "
            f"{row['spearman']:.6f} | {row['deviation']:.1e} | "
            f"{row['energy']:.6g} | {bound_cell(row)} | {row['by']} |"
        )
    runs = [
        f"| `{key}` | {run['task']} | {run['after']} | {_settings(run['settings'])} |"
        for key, run in records["runs"].items()
    ]
    weights = {run["task"]: run["weights"][:12] for run in records["runs"].values()}
    versions = {f"{n} {v}" for run in records["runs"].values() for n, v in run["versions"].items()}
    head = [
        "problem | KiB | bits | at the best states | rank correlation | deviation",
        "best energy | bound | found by",
    ]
    text = TEXT.format(
        head=f"| {' | '.join(head)} |\n| --- |{' ---: |' * 7} --- |",
        count=len(rows),
        size=sum(path.stat().st_size for path in DATA.iterdir()) / 1e6,
        lowest=min(row["spearman"] for row in table_rows),
        levels=", ".join(map(str, LEVELS)),
        allowed=LARGEST_DEVIATION,
        seeds=SEEDS,
        worst=max(row["deviation_at_best"] for row in table_rows),
        proved=sum(bool(row["proved"]) for row in table_rows),
        rows="\n".join(rows),
        runs="\n".join(runs),
        weights=", ".join(f"{task} `{digest}`" for task, digest in weights.items()),
        versions=", ".join(sorted(versions)),
    )
    write_text(PAGE, text)


def _settings(settings: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
