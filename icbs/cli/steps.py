"""``icbs prune --steps`` and ``--method``: gradual pruning, and methods other than iCBS."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.text import Text

from icbs.cli.config_file import Settings
from icbs.cli.console import plain_warnings
from icbs.cli.dashboard_page import DashboardPage
from icbs.cli.output_folders import new_folder
from icbs.cli.session import continued_by_repetition, new_notes, open_task
from icbs.cli.user_code import absolute_paths, allow_local_imports
from icbs.config import PrunerConfig
from icbs.density.folder import STEPS, MakerFolder
from icbs.density.mask_maker import ICBS, MODEL, MaskMaker
from icbs.density.step_settings import step_configs
from icbs.density.steps import StepsProgress, prune_in_steps
from icbs.errors import ConfigError
from icbs.export.pretrained import PRETRAINED
from icbs.formatting import byte_size, duration
from icbs.report.screen import Screen
from icbs.report.tables import outcome_table


def prune_with_steps(chosen: Settings, *, dashboard: bool) -> None:
    """Prune with validated settings, of which ``steps`` or ``method`` is not the default.

    Raises
    ------
    ConfigError
        For settings that can't be combined.
    typer.Exit
        With status 130 after an interruption (Ctrl-C).
    """
    if chosen.enumerate_masks:
        raise ConfigError("--enumerate compares a run of iCBS; leave out --steps and --method")
    config = chosen.pruner
    if chosen.method != ICBS:
        own = config.model_dump(exclude_unset=True, include=set(MaskMaker.layerwise_settings))
        config = PrunerConfig.of(**own)
    allow_local_imports(config.solver)
    maker = MaskMaker.of(chosen.method, config, chosen.recovery)
    step_configs(maker, chosen.steps, chosen.decay, chosen.start_density)
    if chosen.run is not None:
        MakerFolder(chosen.run, STEPS).check()
    console = Screen()
    page = DashboardPage(console, wanted=dashboard)
    options = {name: absolute_paths(value) for name, value in chosen.task_options.items()}
    work = open_task(console, chosen.task, options)
    dense = work.evaluate(work.model)
    folder = chosen.run or new_folder(Path("runs"))
    stages = {"dense": dense}
    status = console.status("pruning")

    def show(now: StepsProgress) -> None:
        where = f"step {now.step} of {now.steps}: density {now.density:g}"
        if now.made is not None:
            console.print(Text(where), highlight=False)
            if now.made.recovered is not None:
                for line in str(now.made.recovered).splitlines():
                    console.print(Text(f"  {line}"), highlight=False, soft_wrap=True)
            stages[f"density {now.made.density:.4g}"] = work.evaluate(now.model)
        elif now.progress is not None:
            status.update(Text(f"{where}, pass {now.progress.step}/{now.progress.passes}"))
            page.show(folder)

    quiet = plain_warnings(console, logging.WARNING)
    with continued_by_repetition(console, folder), quiet, status, page:
        result = prune_in_steps(
            work.model,
            work.batches,
            work.loss,
            steps=chosen.steps,
            decay=chosen.decay,
            start_density=chosen.start_density,
            method=chosen.method,
            recover=chosen.recovery,
            run=folder,
            config=config,
            callback=show,
            about=new_notes(chosen.task, options, dense),
        )
    console.print(outcome_table(stages))
    if work.tokenizer is not None:
        work.tokenizer.save_pretrained(folder / PRETRAINED)
    size = byte_size((folder / MODEL).stat().st_size)
    summary = (
        f"{chosen.method}, density {result.density:.4f}, {duration(result.seconds)}; masks and "
    )
    console.print(
        Text.assemble(summary, f"compressed model ({size}) in ", (str(folder), "bold")),
        highlight=False,
        soft_wrap=True,
    )
