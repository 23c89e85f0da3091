"""Loggers and the dashboard of a run of ``prune`` or ``resume``."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.text import Text

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
        from icbs.downloads.optional import optional
        from icbs.loggers import check_target

        for target in targets:
            check_target(target)
        if dashboard:
            optional("bokeh")
        self.console, self.targets, self.dashboard = console, list(targets), dashboard
        self._loggers: list[Logger] = []
        self._page: subprocess.Popen[str] | None = None

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
            if self.dashboard and self._page is None:
                self._serve()

        return both

    def _serve(self) -> None:
        """Start the dashboard in a process of its own, and print its address."""
        command = [sys.executable, "-m", "icbs", "watch", str(self._folder)]
        self._page = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that Ctrl-C reaches only the run
        )
        Thread(target=self._repeat, args=(self._page,), daemon=True).start()

    def _repeat(self, page: subprocess.Popen[str]) -> None:
        for line in page.stdout or ():
            text = line.strip().replace(" (Ctrl-C ends it)", "")
            self.console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for logger in self._loggers:
            try:
                logger.close()
            except Exception as failure:  # of the service
                log.warning("the log is incomplete: %s", failure)
        if self._page is not None:
            self._page.terminate()
            line = f"the page ends with the run; 'icbs watch {self._folder}' shows it again"
            self.console.print(Text(line), highlight=False, soft_wrap=True)
