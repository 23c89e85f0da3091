"""Callbacks that log a run to TensorBoard or MLflow, by their own packages.

For example ``Pruner(density=0.1).prune(model, batches, loss, callback=TensorBoardLogger("logs"))``.
A logger of a resumed run continues at the step after the checkpoint.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from icbs import parallel
from icbs.config import brief
from icbs.downloads.optional import optional
from icbs.errors import ConfigError
from icbs.run.result import Progress

KINDS = ("tensorboard", "mlflow")


class Logger(ABC):
    """Callback of :meth:`icbs.Pruner.prune` that logs the progress of a run.

    The steps are numbers of passes done. Use it as a context manager, or call :meth:`close` at
    the end.
    """

    def __call__(self, progress: Progress) -> None:
        """Log the figures of a pass."""
        blocks = progress.blocks
        figures = {
            "loss": progress.loss,
            "density": progress.density,
            "seconds": progress.seconds,
            "share_kept": progress.accepted / blocks if blocks else math.nan,
        }
        self.log(progress.step, figures)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures by name; those that are not finite are left out."""
        known = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
        if parallel.rank() == 0 and known:
            self._log(step, known)

    @abstractmethod
    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings of a run, once."""

    @abstractmethod
    def _log(self, step: int, figures: dict[str, float]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Write what is not written yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TensorBoardLogger(Logger):
    """Log a run as event files of TensorBoard, which ``tensorboard --logdir`` shows.

    Parameters
    ----------
    folder : path
        Folder of the event files, one for each run. If it has some of an interrupted run, their
        steps after its checkpoint are hidden.

    Raises
    ------
    MissingPackageError
        If tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        optional("tensorboard")
        self.folder = Path(folder)
        self._writer: Any = None
        self._texts: dict[str, str] = {}

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings as a table of text."""
        rows = (f"| {name} | {brief(value)} |" for name, value in settings.items())
        self._texts["settings"] = "\n".join(["| setting | value |", "| --- | --- |", *rows])

    def _log(self, step: int, figures: dict[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            old = any(self.folder.glob("events.out.tfevents.*"))
            self._writer = SummaryWriter(str(self.folder), purge_step=step if old else None)
            for name, text in self._texts.items():
                self._writer.add_text(name, text, step)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is not written yet, and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MlflowLogger(Logger):
    """Log a run to MLflow's tracking.

    Parameters
    ----------
    uri : str
        Tracking URI: a server, a database, or a folder as ``file:…``.
    name : str
        Name of the run. A run of this name in the experiment is continued, after its last step.
    experiment : str, default "icbs"

    Raises
    ------
    MissingPackageError
        If mlflow is not installed.
    """

    def __init__(self, uri: str, name: str, experiment: str = "icbs") -> None:
        optional("mlflow")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.name = name
        self._last: dict[str, int] = {}
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._open(experiment)
        except MlflowException as error:
            raise ConfigError(f"MLflow can't log to the given place: {error}") from error

    def _open(self, experiment: str) -> None:
        """Find the run of this name, or create it."""
        found = self._client.get_experiment_by_name(experiment)
        owner = found.experiment_id if found else self._client.create_experiment(experiment)
        # A tag holds the name as hexadecimal digits, so that queries need no quoting.
        tag = self.name.encode().hex()
        runs = self._client.search_runs([owner], f"tags.icbs_run = '{tag}'", max_results=1)
        if not runs:
            run = self._client.create_run(owner, tags={"icbs_run": tag}, run_name=self.name)
            self.run_id = run.info.run_id
            return
        self.run_id = runs[0].info.run_id
        self._client.update_run(self.run_id, "RUNNING")
        for key in runs[0].data.metrics:
            steps = [metric.step for metric in self._client.get_metric_history(self.run_id, key)]
            self._last[key] = max(steps, default=-1)

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings as parameters; those of a continued run are kept."""
        known = self._client.get_run(self.run_id).data.params
        for name, value in settings.items():
            if name not in known:
                self._client.log_param(self.run_id, name, brief(value)[:500])

    def _log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            if step > self._last.get(name, -1):  # else logged before the interruption
                self._client.log_metric(self.run_id, name, value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self.run_id)


def check_target(target: str) -> tuple[str, str]:
    """Return the kind and the place of a target of ``--log``.

    Raises
    ------
    ConfigError
        If the target is of another kind, or empty.
    MissingPackageError
        If the package is not installed.
    """
    kind, _, place = target.partition(":")
    if kind not in KINDS or not place:
        raise ConfigError(
            f"--log {target!r} is not a place to log to; use tensorboard:DIR or mlflow:URI"
        )
    optional(kind)
    return kind, place


def open_logger(target: str, name: str) -> Logger:
    """Return the logger of a target of ``--log``; see :func:`check_target`.

    Parameters
    ----------
    target : str
        ``tensorboard:DIR`` or ``mlflow:URI``.
    name : str
        Name of the run; with TensorBoard, a folder in DIR.
    """
    kind, place = check_target(target)
    if kind == "tensorboard":
        return TensorBoardLogger(Path(place) / name)
    return MlflowLogger(place, name)
