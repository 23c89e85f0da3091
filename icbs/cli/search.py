"""``icbs search``: the lowest density at which a task's model meets a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors, plain_warnings
from icbs.cli.options import (
    LANGUAGE,
    Config,
    Dashboard,
    Model,
    Set,
    TaskName,
    Text,
    check_followed,
    chosen_task,
)
from icbs.cli.prune import DEFAULTS, GROUP_DEFAULTS

if TYPE_CHECKING:
    from rich.console import Console

    from icbs.cli.config_file import Settings
    from icbs.density.runs import SearchProgress

TARGET = "Target (one of them)"
METHOD, RANGE = "Method", "Range and certainty"
JUDGES = ("test", "heldout")


@plain_errors
def search(
    model: Model = None,
    task: TaskName = None,
    config: Config = None,
    text: Text = None,
    max_loss_increase: Annotated[
        float | None,
        typer.Option(
            help="Largest increase of the loss over the dense model's, such as 0.02.",
            rich_help_panel=TARGET,
            show_default=False,
        ),
    ] = None,
    max_perplexity_ratio: Annotated[
        float | None,
        typer.Option(
            help="Largest perplexity as a multiple of the dense model's, such as 1.1.",
            rich_help_panel=TARGET,
            show_default=False,
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Lowest accuracy, such as 0.87.", rich_help_panel=TARGET, show_default=False
        ),
    ] = None,
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of accuracy, such as 0.005 for half a point.",
            rich_help_panel=TARGET,
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="icbs, magnitude, wanda, exchange, sparsegpt, alps or compensated-exchange.",
            show_default="icbs",
            rich_help_panel=METHOD,
        ),
    ] = None,
    recover: Annotated[
        str | None,
        typer.Option(
            help="Recovery after each run: a method of 'icbs recover --help', or auto.",
            show_default="none",
            rich_help_panel=METHOD,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Groups pruned as a whole, such as heads,neurons (see 'icbs prune --help'); the "
            "density is then the share of groups.",
            show_default="single weights",
            rich_help_panel=METHOD,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --groups: macs, parameters or latency, whose share takes the place of the "
            "density.",
            show_default="none",
            rich_help_panel=METHOD,
        ),
    ] = None,
    settings: Set = [],  # noqa: B006
    dashboard: Dashboard = False,
    low: Annotated[float, typer.Option(help="Lowest density.", rich_help_panel=RANGE)] = 0.01,
    high: Annotated[
        float, typer.Option(help="Highest density, which is tried first.", rich_help_panel=RANGE)
    ] = 0.9,
    tolerance: Annotated[
        float, typer.Option(help="Relative accuracy of the density.", rich_help_panel=RANGE)
    ] = 0.1,
    judge: Annotated[
        str,
        typer.Option(
            help="Samples that pruning does not see: test (the task's) or heldout (a fifth of "
            "those for pruning).",
            rich_help_panel=RANGE,
        ),
    ] = "test",
    confidence: Annotated[
        float, typer.Option(help="Of the intervals.", rich_help_panel=RANGE)
    ] = 0.95,
    certain: Annotated[
        bool,
        typer.Option(
            "--certain",
            help="Require that the whole interval meets the target.",
            rich_help_panel=RANGE,
        ),
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the search; the same command continues an interrupted one.",
            show_default="runs/search-TASK-SETTINGS",
            rich_help_panel=METHOD,
        ),
    ] = None,
) -> None:
    """Find the lowest density that meets a target, by bisection.

    For example: icbs search --task garment --max-accuracy-loss 0.005, or
    icbs search --model smollm2-135m --max-perplexity-ratio 1.1 --low 0.3, or
    icbs search --task deit --max-accuracy-loss 0.01 --groups heads,neurons --budget macs --low 0.4

    Each run starts from the masks of its neighbour. The folder has the curve of figures, file size
    and operations against density (curve.html, .png, .md, .csv).
    """
    from icbs.cli.config_file import Settings, parse_assignments
    from icbs.density.mask_maker import share
    from icbs.density.target import Target
    from icbs.errors import ConfigError
    from problems.suggest import did_you_mean

    language_options = {"model": model, "text": text}
    task = chosen_task(task, config, language_options)
    if judge not in JUDGES:
        raise ConfigError(
            f"unknown judge {judge!r}{did_you_mean(judge, JUDGES)}; choose from {', '.join(JUDGES)}"
        )
    if task == LANGUAGE:
        config = config or (DEFAULTS if groups is None else GROUP_DEFAULTS)
    targets = {
        "max_loss_increase": max_loss_increase,
        "max_perplexity_ratio": max_perplexity_ratio,
        "min_accuracy": min_accuracy,
        "max_accuracy_loss": max_accuracy_loss,
    }
    Target.of(targets)
    given = parse_assignments(settings)
    for name in ("density", "budget"):
        if name in given:
            raise ConfigError(
                f"{name} is chosen by the search; give the range as --low and --high"
                + (", and the quantity as --budget macs" if name == "budget" else "")
            )
    groups = given.pop("groups", None) if groups is None else groups
    if budget is not None and groups is None:
        raise ConfigError("--budget needs --groups, such as --groups heads,neurons")
    outer = ("recovery", "task_options")
    changes = {
        name if name.partition(".")[0] in outer else f"pruner.{name}": value
        for name, value in given.items()
    }
    flags = {
        "task": task,
        **{f"task_options.{name}": value for name, value in language_options.items()},
        "recovery.method": recover,
        "method": method,
        "pruner.groups": groups,
    }
    if groups is not None:
        flags |= {f"pruner.{name}": value for name, value in share(0.5, budget).items()}
    changes |= {name: value for name, value in flags.items() if value is not None}
    chosen = Settings.read(config, changes)
    if chosen.steps != 1:
        raise ConfigError(
            f"steps = {chosen.steps} in {config}: a search prunes to each density at once; leave "
            "the steps out"
        )
    if dashboard:
        check_followed(chosen.method)
    _search(
        chosen,
        {*given, *(["groups"] if groups is not None else [])},
        run,
        targets,
        {
            "method": chosen.method,
            "budget": budget,
            "low": low,
            "high": high,
            "tolerance": tolerance,
            "confidence": confidence,
            "certain": certain,
        },
        judge,
        dashboard=dashboard,
    )


def _search(
    chosen: Settings,
    given: set[str],
    run: Path | None,
    targets: dict[str, Any],
    options: dict[str, Any],
    judge: str,
    *,
    dashboard: bool,
) -> None:
    """Search with validated settings."""
    import logging
    from dataclasses import replace

    from rich.text import Text

    from icbs.cli.dashboard_page import DashboardPage
    from icbs.cli.session import continued_by_repetition, new_notes, open_task
    from icbs.cli.user_code import absolute_paths, allow_local_imports
    from icbs.density.folder import SEARCH, MakerFolder
    from icbs.density.judge import by_task
    from icbs.density.mask_maker import MaskMaker, share
    from icbs.density.search import search as search_density
    from icbs.errors import ConfigError
    from icbs.export.digests import json_digest
    from icbs.model.modes import evaluation_mode
    from icbs.report.screen import Screen

    pruner = chosen.pruner
    fields = pruner.model_dump(exclude_unset=True, exclude={"density", "budget"})
    if options["method"] != "icbs":  # settings of a file that are for iCBS
        own = MaskMaker.layerwise_settings
        fields = {name: value for name, value in fields.items() if name in own or name in given}
    allow_local_imports(pruner.solver)
    if pruner.groups is not None and pruner.budget is not None and options["budget"] is None:
        raise ConfigError(
            "the settings have a budget; name the quantity that is searched: --budget macs"
        )
    any_share = {} if pruner.groups is None else share(0.5, options["budget"])
    own_settings = type(pruner).of(**fields | any_share)
    maker = MaskMaker.of(
        options["method"], own_settings, chosen.recovery, quantity=options["budget"]
    )
    maker.check_several()
    task_options = {name: absolute_paths(value) for name, value in chosen.task_options.items()}
    if run is None:
        facts = [maker.settings, chosen.task, task_options, judge]
        name = chosen.task.replace(":", "-").replace("/", "-")
        run = Path("runs") / f"search-{name}-{json_digest(facts)[:8]}"
    MakerFolder(run, SEARCH).check()
    console = Screen()
    page = DashboardPage(console, wanted=dashboard)
    work = open_task(console, chosen.task, task_options)
    judged = None
    if judge == "test":
        judged = by_task(work)
        with evaluation_mode(work.model) as plain:
            measured = judged.measure(plain)
        judged, dense = replace(judged, dense=measured), measured.figures
    else:
        dense = dict(work.evaluate(work.model))
    notes = new_notes(chosen.task, task_options, dense)
    show = _Show(console, lambda: page.show(run))
    quiet = plain_warnings(console, logging.WARNING)
    with continued_by_repetition(console, run), quiet, show, page:
        result = search_density(
            work.model,
            work.batches,
            work.loss,
            recover=chosen.recovery,
            evaluate=judged,
            run=run,
            callback=show.update,
            about=notes,
            config=maker.config,
            **targets,
            **options,
        )
    console.print(_table(result.curve.rows(), without=("seconds", "start")))
    for line in result.lines():
        console.print(Text(line), highlight=False, soft_wrap=True)
    console.print(
        Text.assemble("the runs, and the curve (curve.html), are in ", (str(run), "bold")),
        highlight=False,
        soft_wrap=True,
    )


def _table(rows: list[dict[str, str]], without: tuple[str, ...]) -> Any:
    """Return a table for the terminal, without some columns, which the files have."""
    from rich import box
    from rich.table import Table

    from icbs.report.tables import plain

    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    names = [name for name in rows[0] if name not in without]
    for name in names:
        table.add_column(plain(name), justify="left" if name == "density" else "right")
    for row in rows:
        table.add_row(*(plain(row[name]) for name in names))
    return table


class _Show:
    """Status line of a search, and a line for each run."""

    def __init__(self, console: Console, after_pass: Callable[[], object]) -> None:
        self.console, self.after_pass = console, after_pass
        self.status = console.status("measuring the dense model")

    def __enter__(self) -> None:
        self.status.start()

    def __exit__(self, *_: object) -> None:
        self.status.stop()

    def update(self, progress: SearchProgress) -> None:
        """Show a pass, or print a run."""
        from rich.text import Text

        where = f"density {progress.density:g} (run {progress.number} of about {progress.runs})"
        point, curve = progress.point, progress.curve
        if point is not None:
            met = "met" if point.met else "missed"
            sure = {"uncertain": ", uncertain", "meets": "", "misses": ""}.get(point.verdict, "")
            line = f"{where}: {curve.target.kind.words} {curve.spell(point)}, target {met}{sure}"
            self.console.print(Text(line), highlight=False, soft_wrap=True)
        elif (now := progress.progress) is not None:
            text = f"{where}: pass {now.step}/{now.passes}, held-out loss {now.loss:.3f}"
            self.status.update(Text(text))
            self.after_pass()
