"""``icbs prune``: pruning of a task's model, with live progress and a run folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.cli.options import (
    LANGUAGE,
    MORE,
    WHAT,
    Config,
    Dashboard,
    Log,
    Model,
    Set,
    TaskName,
    Text,
    check_followed,
    chosen_task,
)

if TYPE_CHECKING:
    from icbs.cli.config_file import Settings

DEFAULTS = Path(__file__).parents[1] / "zoo" / "language_model.yaml"
"""Settings for language models without --config."""
GROUP_DEFAULTS = DEFAULTS.with_name("language_model_groups.yaml")
"""Those with --groups."""

#: Headings of the groups of settings (:mod:`icbs.config.groups`) that have flags.
LAYERS, GROUPS = "Layers and density", "Groups of weights"
START, BLOCKS = "Initial masks", "Blocks"
WEIGHTS = "Weights"
STEPS = "Method and steps of the density"
SOLVER, BUDGET, RUN_FOLDER = "Solver", "Budget and numbers", "Run folder"

#: Settings for ``--set`` other than the pruner's.
OUTER = (
    *("enumerate_masks", "evaluate_every", "recovery", "task_options"),
    *("method", "steps", "decay", "start_density"),
)


@plain_errors
def prune(
    model: Model = None,
    task: TaskName = None,
    config: Config = None,
    text: Text = None,
    length: Annotated[
        int | None,
        typer.Option(help="Tokens in a window of text.", show_default="512", rich_help_panel=WHAT),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Largest number of windows of text for pruning.",
            show_default="256",
            rich_help_panel=WHAT,
        ),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            help="Share of weights kept, between 0 and 1.",
            show_default="0.1; with --model 0.5",
            rich_help_panel=LAYERS,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Groups pruned as a whole: heads, neurons, channels, blocks (which 'icbs cut' "
            "removes), kernels, strided, or tiles such as 4x1; joined by commas.",
            show_default="single weights",
            rich_help_panel=GROUPS,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --groups, instead of --density: macs=0.5, parameters=0.5 or latency=0.6.",
            show_default="none",
            rich_help_panel=GROUPS,
        ),
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option(
            help="Initial masks: magnitude, wanda, gradient, random or exchange; with --weights "
            "sparsegpt or alps; with --groups fisher and others.",
            show_default="magnitude; with --model exchange",
            rich_help_panel=START,
        ),
    ] = None,
    block_size: Annotated[
        str | None,
        typer.Option(
            help="Weights in a block, 2 at least; all for one block of all weights.",
            show_default="2048; with --model 1024",
            rich_help_panel=BLOCKS,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Whether kept weights move: fixed, initial (they take the values of --initial "
            "sparsegpt or alps), or global (also between passes).",
            show_default="fixed",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    blocks_per_layer: Annotated[
        int | None,
        typer.Option(
            help="Disjoint blocks of a layer in one pass.",
            show_default="1",
            rich_help_panel=BLOCKS,
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            help="Solver by name ('icbs solvers' lists them), or module:Class, which is run.",
            show_default="anneal",
            rich_help_panel=SOLVER,
        ),
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            help="Number of passes; 0 sets the initial masks only.",
            show_default="100; with --model 10",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which no new pass starts.",
            show_default="none",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of all random choices, ≥ 0.", show_default="0", rich_help_panel=BUDGET
        ),
    ] = None,
    save_blocks: Annotated[
        str | None,
        typer.Option(
            help="Save block problems: every N-th block (N), or M blocks spread over layers and "
            "passes (sample:M).",
            show_default="none",
            rich_help_panel=RUN_FOLDER,
        ),
    ] = None,
    enumerate_masks: Annotated[
        bool,
        typer.Option(
            "--enumerate",
            help="Evaluate all masks at the end, to compare with the true optimum; for some two "
            "dozen weights.",
            rich_help_panel=MORE,
        ),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="Method: icbs, or magnitude, wanda, exchange, sparsegpt, alps or "
            "compensated-exchange.",
            show_default="icbs",
            rich_help_panel=STEPS,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Steps in which the density decreases: their number, or densities such as "
            "0.5,0.2,0.1. --recover follows each step.",
            show_default="1",
            rich_help_panel=STEPS,
        ),
    ] = None,
    decay: Annotated[
        str | None,
        typer.Option(
            help="Course of the density: linear, cubic, cosine, exponential, late-cubic or "
            "late-cosine.",
            show_default="cubic",
            rich_help_panel=STEPS,
        ),
    ] = None,
    recover: Annotated[
        str | None,
        typer.Option(
            help="Change the kept weights at the end: a method of 'icbs recover --help', or auto.",
            show_default="none",
            rich_help_panel=MORE,
        ),
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(
            help="Samples that a dense language model generates itself, for --recover.",
            show_default="0",
            rich_help_panel=MORE,
        ),
    ] = None,
    settings: Set = [],  # noqa: B006
    log: Log = [],  # noqa: B006
    dashboard: Dashboard = False,
    run: Annotated[
        Path | None,
        typer.Option(
            help="New folder for checkpoints and results.",
            show_default="runs/DATE-TIME",
            rich_help_panel=MORE,
        ),
    ] = None,
) -> None:
    """Prune a model with iCBS; 'icbs resume' continues an interrupted run.

    For example: icbs prune --task garment --density 0.1, or
    icbs prune --model smollm2-135m --text wikipedia --density 0.5, or
    icbs prune --task deit --groups heads,neurons --budget macs=0.7
    """
    from icbs.cli.config_file import Settings, parse_assignments
    from icbs.errors import ConfigError

    if generate is not None and recover is None:
        raise ConfigError(
            f"--generate {generate} makes samples for a recovery, and there is none; add --recover "
            "METHOD, such as --recover distill"
        )
    language_options = {"model": model, "text": text, "length": length, "samples": samples}
    task = chosen_task(task, config, language_options)
    if task == LANGUAGE:
        config = config or (DEFAULTS if groups is None else GROUP_DEFAULTS)
    flags = {
        "task": task,
        **{f"task_options.{name}": value for name, value in language_options.items()},
        "pruner.density": density,
        "pruner.groups": groups,
        "pruner.budget": budget,
        "pruner.passes": passes,
        "pruner.time_limit": time_limit,
        "pruner.solver": solver,
        "pruner.weights": weights,
        "pruner.block_size": block_size,
        "pruner.blocks_per_layer": blocks_per_layer,
        "pruner.initial": initial,
        "pruner.seed": seed,
        "pruner.save_blocks": save_blocks,
        "run": run,
        "enumerate_masks": enumerate_masks or None,
        "recovery.method": recover,
        "method": method,
        "steps": None if steps is None else _steps(steps),
        "decay": decay,
        "recovery.generate": generate,
    }
    changes = {name: value for name, value in flags.items() if value is not None}
    changes |= {
        name if name.partition(".")[0] in OUTER else f"pruner.{name}": value
        for name, value in parse_assignments(settings).items()
    }
    chosen = Settings.read(config, changes)
    if chosen.gradual:
        from icbs.cli.steps import prune_with_steps

        if log:
            raise ConfigError(
                "--log follows a single run of iCBS; leave it out of pruning in steps, and follow "
                "its runs with --dashboard"
            )
        if dashboard:
            check_followed(chosen.method)
        prune_with_steps(chosen, dashboard=dashboard)
    else:
        _prune(chosen, log, dashboard=dashboard)


def _steps(text: str) -> int | list[float]:
    """Read a number of steps, or densities with commas between them.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    from icbs.errors import ConfigError

    try:
        return int(text) if text.strip().isdigit() else [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--steps is {text!r}; give a number, such as 5, or densities, such as 0.5,0.2,0.1"
        ) from None


def check_groups_of(chosen: Settings) -> None:
    """Refuse options that don't apply to groups of weights.

    Raises
    ------
    ConfigError
    """
    from icbs.errors import ConfigError

    if chosen.pruner.groups is not None and chosen.enumerate_masks:
        raise ConfigError("--enumerate evaluates masks of single weights; leave out --groups")


def _prune(chosen: Settings, targets: list[str], *, dashboard: bool) -> None:
    """Prune with validated settings."""
    from icbs.cli.followers import Followers
    from icbs.cli.output_folders import new_folder
    from icbs.cli.recovery import check_method, recover_after
    from icbs.cli.session import new_notes, open_task, prune_live, show_outcome
    from icbs.cli.true_optimum import DenseTask
    from icbs.cli.user_code import absolute_paths, allow_local_imports
    from icbs.model.finding import find_layers
    from icbs.pruner import Pruner
    from icbs.report.evaluations import Evaluator
    from icbs.report.screen import Screen
    from icbs.run.run_folder import RunFolder

    allow_local_imports(chosen.pruner.solver)
    pruner = Pruner(chosen.pruner)
    if chosen.recovery is not None:
        check_method(chosen.recovery)
    if chosen.run is not None:
        RunFolder.reserve(chosen.run)
    console = Screen()
    followers = Followers(console, targets, dashboard=dashboard)
    options = {name: absolute_paths(value) for name, value in chosen.task_options.items()}
    work = open_task(console, chosen.task, options)
    check_groups_of(chosen)
    dense_task = None
    if chosen.pruner.groups is None:
        layers = find_layers(work.model, chosen.pruner)  # checks them before the evaluation
        dense_task = DenseTask.of(work, layers, chosen.pruner) if chosen.enumerate_masks else None
    dense = work.evaluate(work.model)
    folder = chosen.run or new_folder(Path("runs"))
    evaluator = Evaluator(work.evaluate, chosen.evaluate_every, folder)
    about = new_notes(
        chosen.task,
        options,
        dense,
        evaluate_every=chosen.evaluate_every,
        enumerate_masks=chosen.enumerate_masks,
    )
    kept = None
    if chosen.recovery is not None:
        about["recovery"] = chosen.recovery.model_dump(exclude_unset=True)
        kept = copy.deepcopy(work.model)
    result = prune_live(
        console,
        "iCBS",
        evaluator,
        folder,
        chosen.task,
        lambda show: pruner.prune(
            work.model,
            work.batches,
            work.loss,
            run=folder,
            callback=show,
            progress=False,
            about=about,
        ),
        followers.follow(folder, evaluator, pruner.config.model_dump()),
    )
    by_pass = chosen.pruner.acceptance == "pass"
    show_outcome(console, work, evaluator, result, folder, dense, by_pass=by_pass)
    if dense_task is not None:
        dense_task.compare(console, result, folder)
    if chosen.recovery is not None and kept is not None:
        recover_after(console, work, kept, result.masks, folder, chosen.recovery, dense)
