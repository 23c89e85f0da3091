"""``icbs readiness``: figures of problems on quantum hardware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icbs.cli.console import plain_errors

if TYPE_CHECKING:
    from rich.console import Console

    from solvers.readiness import Assessment, Case, Options


@plain_errors
def readiness(
    problems: Annotated[
        list[str],
        typer.Argument(
            help="Files, run folders with saved blocks, library:NAME or library:SET.",
            metavar="FILE|RUN|library:NAME...",
        ),
    ],
    targets: Annotated[
        str | None,
        typer.Option(
            help="Names, kinds (gate, annealer, fault-tolerant) or YAML files of your own; a comma "
            "between them.",
            show_default="all",
        ),
    ] = None,
    p: Annotated[str, typer.Option("--p", help="Layers of QAOA; a comma between them.")] = "1,2,4",
    start: Annotated[
        str, typer.Option(help="Initial state of circuits: dicke, status-quo or relaxation.")
    ] = "dicke",
    mixer: Annotated[str, typer.Option(help="Mixer of circuits: ring or complete.")] = "ring",
    min_success: Annotated[
        float, typer.Option(help="Least share of shots without errors at which a circuit fits.")
    ] = 0.01,
    comparison: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Folder of 'icbs compare' to read classical times from, instead of a short run "
            "of anneal.",
        ),
    ] = None,
    classical_seconds: Annotated[
        float, typer.Option(help="Seconds of the classical solver; 0 for no run.")
    ] = 0.5,
    html: Annotated[bool, typer.Option("--html", help="Write readiness.html, one file.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for JSON, CSV and HTML.",
            file_okay=False,
            show_default="none; a new one in runs/ with --html",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
) -> None:
    """Assess problems on quantum hardware: gates, success, chains, and what stops the next size.

    No account, hardware or network is needed. Each line of the table is a target: gates on two
    qubits and their layers at the fewest layers of QAOA, the share of shots without an error,
    the longest chain of an annealer, and the largest n of this family of problems that fits.

    For example: icbs readiness library:garment-0-12-late --html
    """
    import tempfile

    from icbs.cli.output_folders import new_folder
    from icbs.report.screen import Screen
    from solvers.comparison.extra import importing
    from solvers.readiness import Options, assess_all, available_targets, load_targets
    from solvers.readiness.table import quality_line, terminal, write

    console = Screen()
    options = Options(
        targets=tuple(load_targets(targets or ",".join(available_targets()))),
        p=_layers(p),
        start=start,
        mixer=mixer,
        min_success=min_success,
        comparison=comparison,
        classical_seconds=classical_seconds,
        seed=seed,
    )
    if html:
        with importing():  # refused before any work
            import bokeh  # noqa: F401
    _check_packages(options, console, named=targets is not None)
    with tempfile.TemporaryDirectory() as spare, console.status("reading problems") as status:
        cases = _cases(problems, Path(spare))
        found: list[Assessment] = []
        for assessment in assess_all(cases, options, status.update):
            found.append(assessment)
            console.print(terminal(assessment))
            if line := quality_line(assessment):
                console.print(line + "\n", highlight=False)
    if len(found) == 1:
        for verdict in found[0].verdicts:
            reason = f"{verdict.target}: {verdict.skipped or verdict.reason}"
            console.print(reason, style="dim", highlight=False)
    folder = out or (new_folder(Path("runs"), "readiness-") if html else None)
    if folder is not None:
        written = write(found, options.targets, folder)
        if html:
            from solvers.readiness.report import write_report

            written.append(write_report(found, options.targets, folder / "readiness.html"))
        shown = ", ".join(map(str, written))
        console.print(f"written: {shown}", highlight=False, soft_wrap=True)


def _layers(text: str) -> tuple[int, ...]:
    """Read numbers of layers."""
    from icbs.errors import ConfigError

    try:
        return tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise ConfigError(f"--p is {text!r}; pass numbers of layers, such as 1,2,4") from None


def _check_packages(options: Options, console: Console, named: bool) -> None:
    """Refuse targets without their packages if they were named, else say what is left out."""
    from solvers.errors import MissingBackendError

    missing = options.missing_packages()
    if missing and named:
        raise MissingBackendError("; ".join(missing))
    for line in missing:
        console.print(f"left out: {line}", style="yellow", highlight=False)


def _cases(places: list[str], spare: Path) -> list[Case]:
    """Read problems; the blocks of a run stand for the run."""
    import math

    from icbs.cli.blocks import blocks_folder
    from solvers.comparison.cases import examine
    from solvers.comparison.config import ProblemSpec
    from solvers.readiness import Case

    specs = []
    for place in places:
        folder = not place.startswith("library:") and Path(place).is_dir()
        specs.append(ProblemSpec(path=str(blocks_folder(Path(place))) if folder else place))
    return [
        Case(case.name, problem, case.state(), None if math.isnan(case.best) else case.best)
        for case, problem in examine(specs, spare)
    ]
