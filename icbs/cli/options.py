"""Options that several commands share, and the choice of a language model by them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from icbs.zoo import BUILTIN

LANGUAGE = "language_model"
WHAT, MORE = "Model and data (--model, --task or --config)", "Other settings, and results"

Model = Annotated[
    str | None,
    typer.Option(
        help="Causal language model: folder, .gguf file, hub name or smollm2-135m.",
        rich_help_panel=WHAT,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        help=f"Task: {', '.join(BUILTIN)}, or your own module:function, which is run.",
        rich_help_panel=WHAT,
    ),
]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings.", rich_help_panel=WHAT)]
Text = Annotated[
    str | None,
    typer.Option(
        help="Texts for --model: file, folder, wikipedia, openwebtext, articles, dialogues or "
        "datasets:NAME.",
        show_default="wikipedia",
        rich_help_panel=WHAT,
    ),
]
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
Log = Annotated[
    list[str],
    typer.Option(
        "--log",
        metavar="KIND:PLACE",
        help="Log the run to tensorboard:DIR or mlflow:URI; repeatable.",
        rich_help_panel=MORE,
        show_default=False,
    ),
]
Dashboard = Annotated[
    bool,
    typer.Option(
        "--dashboard",
        help="Show the run on a local page while it lasts, as 'icbs watch RUN' does.",
        rich_help_panel=MORE,
    ),
]


def check_followed(method: str) -> None:
    """Refuse ``--dashboard`` for a method without passes.

    Raises
    ------
    ConfigError
    """
    from icbs.errors import ConfigError

    if method != "icbs":
        raise ConfigError(
            f"--dashboard follows the passes of iCBS, and method {method} has none; leave it out"
        )


def chosen_task(
    task: str | None, config: Path | None, language_options: Mapping[str, Any]
) -> str | None:
    """Return the task, which is that of language models if one of their options is given.

    Parameters
    ----------
    task : str, optional
        Value of ``--task``.
    config : Path, optional
        File of settings.
    language_options : mapping
        Options of language models by name, None if not given.

    Raises
    ------
    ConfigError
        If no model is given, or the task of the options or of the file is another one.
    """
    from icbs.cli.config_file import read_yaml
    from icbs.errors import ConfigError

    if task is None and config is None and language_options.get("model") is None:
        raise ConfigError(
            "no model is given; use --model for a language model, --task for a task "
            f"({', '.join(BUILTIN)}, or your own module:function), or --config for a file of "
            "settings; see --help"
        )
    if all(value is None for value in language_options.values()):
        return task
    *names, last = (f"--{name}" for name in language_options)
    refused = f"{', '.join(names)} and {last} don't apply to the task"
    if task not in (None, LANGUAGE):
        raise ConfigError(f"{refused} {task!r}")
    named = read_yaml(config).get("task", LANGUAGE) if config else LANGUAGE
    if named != LANGUAGE:
        raise ConfigError(f"{refused} {named!r} of {config}")
    return LANGUAGE
