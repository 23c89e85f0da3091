"""Loggers and the dashboard of a run of ``prune`` or ``resume``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from icbs.cli.dashboard_page import DashboardPage
from icbs.formatting import metrics
from icbs.report.evaluations import Evaluator
from icbs.run.result import Progress

if TYPE_CHECKING:
    from icbs.loggers import Logger

log = logging.getLogger("icbs")


class Followers:
    """Log a run to the targets of ``--log``, and show it on the page of ``icbs watch``.

    Parameters
    ----------
    console : rich.console.Console
    targets : sequence of str
        Targets of ``--log``.
    dashboard : bool
        Whether to serve the dashboard while the run lasts, by a process of its own.

    Raises
    ------
    ConfigError
        If a target is not a place to log to.
    MissingPackageError
        If a package is not installed.
    """

    def __init__(self, console: Console, targets: Sequence[str], *, dashboard: bool) -> None:
        from icbs.loggers import check_target

        for target in targets:
            check_target(target)
        self.targets, self.page = list(targets), DashboardPage(console, wanted=dashboard)
        self._loggers: list[Logger] = []

    def follow(self, folder: Path, evaluator: Evaluator, settings: dict[str, Any]) -> Self:
        """Set the run, and open its loggers.

        Parameters
        ----------
        folder : Path
            Its folder, whose name is that of the run.
        evaluator : Evaluator
            Its test figures, which are logged as well.
        settings : dict
            Its settings.
        """
        from icbs.loggers import open_logger

        self._folder, self._evaluator = folder, evaluator
        self._loggers = [open_logger(target, folder.resolve().name) for target in self.targets]
        for logger in self._loggers:
            logger.settings(settings)
        return self

    def after(self, show: Callable[[Progress], object]) -> Callable[[Progress], object]:
        """Return a callback that calls ``show``, which evaluates, and then the followers."""

        def both(progress: Progress) -> None:
            show(progress)
            for logger in list(self._loggers):
                try:
                    logger(progress)
                    rows = self._evaluator.rows
                    if rows and rows[-1].step == progress.step:
                        names = metrics(rows[-1].figures)
                        logger.log(progress.step, {f"test/{n}": rows[-1].figures[n] for n in names})
                except Exception as error:  # of the service: the run continues
                    self._loggers.remove(logger)
                    log.warning("logging ends at pass %d: %s", progress.step, error)
            self.page.show(self._folder)

        return both

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for logger in self._loggers:
            try:
                logger.close()
            except Exception as failure:  # of the service
                log.warning("the log is incomplete: %s", failure)
        self.page.__exit__()
