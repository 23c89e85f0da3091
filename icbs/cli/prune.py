"""``icbs prune``: prune a task's model, with progress and a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.zoo.names import BUILTIN

if TYPE_CHECKING:
    from icbs.cli.config_file import Settings

LANGUAGE = "language_model"
DEFAULTS = Path(__file__).parents[1] / "zoo" / "language_model.yaml"
"""Settings for language models, where no file of settings is named."""

WHAT, MORE = "What to prune (one of the first three)", "Other settings, and results"
#: Headings of the groups of settings (:mod:`icbs.config.groups`) that have flags.
LAYERS, START, BLOCKS = "Layers and density", "Initial masks", "Blocks"
SOLVER, BUDGET, RUN_FOLDER = "Solver", "Budget and numbers", "Run folder"

#: What ``--set`` can name beside the pruner's settings.
OUTER = ("evaluate_every", "task_options")

Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting of 'icbs settings', such as tabu=0.2 or paper.ridge=1e-3; repeatable.",
        rich_help_panel=MORE,
        show_default=False,
    ),
]


@plain_errors
def prune(
    model: Annotated[
        str | None,
        typer.Option(
            help="A causal language model: folder, .gguf file, hub name or smollm2-135m.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(BUILTIN)}, or module:function of your own, which is run.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings.", rich_help_panel=WHAT)
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="Texts for --model: file, folder, wikipedia, openwebtext, articles or "
            "datasets:NAME.",
            show_default="wikipedia",
            rich_help_panel=WHAT,
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help="Tokens in a window of text.", show_default="512", rich_help_panel=WHAT),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Windows of text for pruning, at most.",
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
    initial: Annotated[
        str | None,
        typer.Option(
            help="Score of the initial masks: magnitude, wanda, gradient, random or exchange.",
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
            help="Forward and backward passes; 0 sets the initial masks.",
            show_default="100; with --model 10",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which no further pass is begun.",
            show_default="none",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of all randomness, ≥ 0.", show_default="0", rich_help_panel=BUDGET),
    ] = None,
    save_blocks: Annotated[
        str | None,
        typer.Option(
            help="Keep block problems as files: every N-th (N), or M spread over layers and "
            "passes (sample:M).",
            show_default="none",
            rich_help_panel=RUN_FOLDER,
        ),
    ] = None,
    settings: Set = [],  # noqa: B006
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder to make for the run.",
            show_default="runs/DATE-TIME",
            rich_help_panel=MORE,
        ),
    ] = None,
) -> None:
    """Prune a model with iCBS; leaves a run folder that 'icbs resume' can go on with.

    For example: icbs prune --task garment --density 0.1, or
    icbs prune --model smollm2-135m --text wikipedia --density 0.5
    """
    from icbs.cli.config_file import Settings, parse_assignments, read_yaml
    from icbs.errors import ConfigError

    if model is None and task is None and config is None:
        raise ConfigError(
            "name what to prune: --model for a language model, --task for a task "
            f"({', '.join(BUILTIN)}, or module:function of your own), or --config for a file "
            "of settings; see 'icbs prune --help'"
        )
    about_text = {"model": model, "text": text, "length": length, "samples": samples}
    if any(value is not None for value in about_text.values()):
        if task not in (None, LANGUAGE):
            raise ConfigError(f"--model, --text, --length and --samples are not for task {task!r}")
        named = read_yaml(config).get("task", LANGUAGE) if config else LANGUAGE
        if named != LANGUAGE:
            raise ConfigError(
                f"--model, --text, --length and --samples are not for task {named!r} of {config}"
            )
        task = LANGUAGE
    if task == LANGUAGE:
        config = config or DEFAULTS
    flags = {
        "task": task,
        **{f"task_options.{name}": value for name, value in about_text.items()},
        "pruner.density": density,
        "pruner.passes": passes,
        "pruner.time_limit": time_limit,
        "pruner.solver": solver,
        "pruner.block_size": block_size,
        "pruner.initial": initial,
        "pruner.seed": seed,
        "pruner.save_blocks": save_blocks,
        "run": run,
    }
    changes = {name: value for name, value in flags.items() if value is not None}
    changes |= {
        name if name.partition(".")[0] in OUTER else f"pruner.{name}": value
        for name, value in parse_assignments(settings).items()
    }
    _prune(Settings.read(config, changes))


def _prune(chosen: Settings) -> None:
    """Prune as the settings say."""
    from icbs.cli.output_folders import new_folder
    from icbs.cli.session import close, open_task, prune_live
    from icbs.cli.user_code import look_here, resolved
    from icbs.model.finding import find_layers
    from icbs.pruner import Pruner
    from icbs.report.evaluations import Evaluator
    from icbs.report.screen import Screen
    from icbs.run.run_folder import RunFolder

    look_here(chosen.pruner.solver)
    pruner = Pruner(chosen.pruner)
    if chosen.run is not None:
        RunFolder.reserve(chosen.run)
    console = Screen()
    options = {name: resolved(value) for name, value in chosen.task_options.items()}
    work = open_task(console, chosen.task, options)
    find_layers(work.model, chosen.pruner)  # what can't be pruned is refused before it is measured
    dense = work.evaluate(work.model)
    folder = chosen.run or new_folder(Path("runs"))
    evaluator = Evaluator(work.evaluate, chosen.evaluate_every, folder)
    about = {
        "task": chosen.task,
        "task_options": options,
        "evaluate_every": chosen.evaluate_every,
        "dense": dense,
    }
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
    )
    by_pass = chosen.pruner.acceptance == "pass"
    close(console, work, evaluator, result, folder, dense, by_pass=by_pass)
