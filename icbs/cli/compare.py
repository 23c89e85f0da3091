"""``icbs compare``: solvers on problems, as a table, a summary and a report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icbs.cli.console import plain_errors

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console

    from icbs.cli.dashboard_page import DashboardPage
    from solvers.comparison import Campaign

#: Columns of the summary that fit a terminal, and those shown only where they say something.
_COLUMNS = (
    *("solver", "at_best", "median_gap", "primal_integral", "proofs", "failures", "unsupported"),
)
_IF_ANY = ("failures", "unsupported")
#: Seconds from which on it is worth saying how much of the time was not the solvers' own.
_LONG = 60.0


@plain_errors
def compare(
    problems: Annotated[
        str | None,
        typer.Option(
            help="library:SET (such as library:small), library:NAME, files, folders or patterns of "
            "files; a comma between them. Needed, here or in --config."
        ),
    ] = None,
    solvers: Annotated[
        str | None,
        typer.Option(
            help="Names of 'icbs solvers', module:Class of your own, or labels of the "
            "configuration; a comma between them."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each solver on each problem.", show_default="3")
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Wall seconds of a run, 0.01 or more.", show_default="1.0"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs, the table and the report; a campaign that was interrupted "
            "continues there.",
            show_default="a new one in runs/",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML file with these and more settings."),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(help="CPUs that a run is bound to.", show_default="1")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs in parallel.", show_default="as many as the CPUs hold"),
    ] = None,
    restart: Annotated[
        bool | None,
        typer.Option(
            "--restart/--once",
            help="Start solvers that come back early again, until the limit, or not.",
            show_default="restart",
        ),
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler that executes the runs.")
    ] = None,
    imports: Annotated[
        list[Path],
        typer.Option(
            "--import",
            exists=True,
            dir_okay=False,
            help="Table of external runs on these problems (CSV, MQLib); repeatable.",
        ),
    ] = [],  # noqa: B006
    qoblib: Annotated[
        Path | None,
        typer.Option(help="Folder to write submissions to QOBLIB to.", file_okay=False),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write report.html, one file, no network.")] = True,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Show runs done, time left and the present standing on a local page while it "
            "lasts, as 'icbs watch FOLDER' does.",
        ),
    ] = False,
) -> None:
    """Compare solvers on problems: every solver, problem and seed, each run once.

    The same command continues where it was interrupted. Whatever a solver does is a row of the
    table, and every energy is recomputed.

    For example: icbs compare --problems library:small --solvers anneal,exact,diagonal
    """
    from icbs.cli.campaign_settings import config_of
    from icbs.cli.dashboard_page import DashboardPage
    from icbs.cli.output_folders import new_folder
    from icbs.report.screen import Screen
    from solvers.comparison import Campaign
    from solvers.comparison.extra import importing
    from solvers.comparison.imported import read_imported

    with importing():  # refused before hours of work
        import pandas  # noqa: F401
    changes = {
        "problems": problems,
        "seeds": seeds,
        "time_limit": time_limit,
        "cores": cores,
        "jobs": jobs,
        "restart": restart,
    }
    chosen = config_of(config, changes, solvers)
    console = Screen()
    page = DashboardPage(console, wanted=dashboard, followed="comparison")
    folder = new_folder(Path("runs"), "compare-") if out is None else out
    with console.status("reading problems and solvers"):
        campaign = Campaign.plan(chosen, folder)
        rows = [row for path in imports for row in read_imported(path, campaign)]
    _announce(console, campaign)
    overhead = _carry_out(console, campaign, dask, page)
    table = campaign.table(rows)
    written = _write(console, campaign, table, qoblib, report)
    _summarise(console, campaign, table, overhead)
    console.print(f"written: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)


def _announce(console: Console, campaign: Campaign) -> None:
    """Say what will run, on what terms, and what will not."""
    from icbs.formatting import counted, duration

    config, cases = campaign.config, list(campaign.cases.values())
    console.print(
        f"{counted(len(campaign.runs), 'run')}: {counted(len(cases), 'problem')}, "
        f"{counted(len(campaign.entrants), 'solver')}, {counted(len(config.seeds), 'seed')}; "
        f"at most {config.time_limit:g} s each on {counted(config.cores, 'core')}, "
        f"{campaign.jobs} in parallel: up to "
        f"{duration(campaign.longest)} of search",
        highlight=False,
    )
    without = [case.name for case in cases if not case.start]
    if without:
        console.print(
            f"no status quo: gaps count from the mean energy of all feasible states "
            f"({_few(without)})",
            style="dim",
            highlight=False,
        )
    unknown = [case.name for case in cases if math.isnan(case.best)]
    if unknown:
        console.print(
            f"no best value known: gaps count to the lowest energy found here ({_few(unknown)})",
            style="dim",
            highlight=False,
        )
    refused: dict[str, dict[str, str]] = {}
    for run in campaign.runs:
        if run.key in campaign.refused:
            refused.setdefault(run.solver, {})[run.problem] = campaign.refused[run.key]
    for solver, why in refused.items():
        first = next(iter(why.values()))
        console.print(
            f"{solver} does not take {_few(list(why))}: {first}", style="yellow", highlight=False
        )


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _carry_out(
    console: Console, campaign: Campaign, dask: str | None, page: DashboardPage
) -> float | None:
    """Carry the campaign out; return the share of time that was not the solvers' own."""
    import time

    from icbs.cli.campaign_live import CampaignLive
    from icbs.cli.dask_client import executor_of
    from icbs.formatting import counted

    began = time.monotonic()
    try:
        with executor_of(dask) as executor, page, CampaignLive(console, campaign) as show:
            campaign.carry_out(show, executor, lambda: page.show(campaign.folder))
    except KeyboardInterrupt:
        done = counted(len(campaign.answers), "run")
        console.print(
            f"interrupted; the same command with --out {campaign.folder} continues after {done} of "
            f"{len(campaign.runs)}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    own, taken = show.solver_seconds / campaign.jobs, time.monotonic() - began
    if executor is not None or own < _LONG:
        return None
    return taken / own - 1


def _write(
    console: Console, campaign: Campaign, table: DataFrame, qoblib: Path | None, report: bool
) -> list[Path]:
    """Write the table, the report and what else is asked for."""
    from solvers.comparison import table as tables

    written = tables.write(table, campaign.folder)
    if report:
        from solvers.comparison.report import write_report

        with console.status("drawing the report"):
            written.append(write_report(table, campaign.folder / "report.html"))
    if qoblib is not None:
        from solvers.comparison.qoblib import export

        export(campaign, table, qoblib)
        written.append(qoblib)
    return written


def _summarise(
    console: Console, campaign: Campaign, table: DataFrame, overhead: float | None
) -> None:
    """Print a line for each solver, the best first."""
    from rich.table import Table
    from rich.text import Text

    from solvers.comparison.measures import HEADINGS, spelled, summary

    shown = Table(
        title=f"{len(campaign.cases)} problems, {campaign.config.time_limit:g} s a run",
        caption="gap = (E - best) / (start - best); primal integral: its mean over the time",
    )
    rows = summary(table)
    columns = [name for name in _COLUMNS if name not in _IF_ANY or rows[name].any()]
    for name in columns:
        shown.add_column(HEADINGS[name], justify="left" if name == "solver" else "right")
    for row in rows.to_dict("records"):
        cells = dict(zip(HEADINGS, spelled(row), strict=True))
        shown.add_row(*(Text(cells[name], no_wrap=True) for name in columns))
    console.print(shown)
    if overhead is not None:
        console.print(
            f"{overhead:.1%} of the time on top of the solvers' own", style="dim", highlight=False
        )
