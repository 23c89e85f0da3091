"""Compare solvers from Python: one call, one data frame."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solvers.comparison.campaign import Campaign, Progress
from solvers.comparison.config import CampaignConfig
from solvers.comparison.extra import importing

if TYPE_CHECKING:
    from pandas import DataFrame


def compare(
    problems: Any,
    solvers: Any = "anneal",
    *,
    seeds: int | Sequence[int] = 3,
    time_limit: float = 1.0,
    out: str | Path | None = None,
    imports: Sequence[str | Path] = (),
    progress: Callable[[Progress], object] | None = None,
    executor: Executor | None = None,
    **settings: Any,
) -> DataFrame:
    """Run every solver on every problem with every seed, and return the table of all runs.

    Each run has a process on its own CPUs, which is killed if the solver hangs. Failures are rows
    too; every energy is recomputed.

    Parameters
    ----------
    problems : str, Path, CardinalityQUBO, mapping or sequence of these
        ``"library:small"`` (a set) or ``"library:NAME"``; a file or a pattern of files; a
        problem; ``{name: problem}``; or mappings with more fields, such as
        ``{"name": …, "problem": …, "start": …, "best": …}``
        (:class:`solvers.comparison.ProblemSpec`).
    solvers : str, Solver, dimod.Sampler, mapping or sequence of these
        Names, ``"module:Class"``, instances, ``(name, options)``, or ``{label: options}``, where
        ``options`` may name another ``solver``.
    seeds : int or sequence of int, default 3
        A number of seeds (0, 1, 2, …), or the seeds.
    time_limit : float, default 1.0
        Wall seconds of a run; 0.01 or more.
    out : str or Path, optional
        Folder for the runs and the table. A campaign that was interrupted continues where it
        stopped. Without a folder, only the returned table is kept.
    imports : sequence of str or Path
        Tables of external runs (:mod:`solvers.comparison.imported`).
    progress : callable, optional
        Called with a :class:`solvers.comparison.Progress` after each run.
    executor : concurrent.futures.Executor, optional
        Executor of the runs, such as ``dask.distributed.Client().get_executor()``.
    **settings
        Others of :class:`solvers.comparison.CampaignConfig`: ``cores``, ``jobs``, ``warm_start``,
        ``restart``, ``grace``.

    Returns
    -------
    pandas.DataFrame
        See :data:`solvers.comparison.table.COLUMNS`.

    Raises
    ------
    CampaignError, SolverError, InvalidProblemError, FormatError
        Before any work is done.

    Examples
    --------
    >>> from problems.planted import planted
    >>> frame = compare({"tiny": planted(12, 6, 8).problem}, ["diagonal", "anneal"],
    ...                 seeds=1, time_limit=0.1)                          # doctest: +SKIP
    >>> frame[frame.row == "end"][["solver", "energy", "status"]]         # doctest: +SKIP
    """
    from solvers.comparison.imported import read_imported

    with importing():
        import pandas  # noqa: F401 - refused before hours of work, not after
    config = CampaignConfig.of(
        problems=problems, solvers=solvers, seeds=seeds, time_limit=time_limit, **settings
    )
    place: Any = tempfile.TemporaryDirectory(prefix="icbs-compare-") if out is None else None
    with place or nullcontext(out) as folder:
        campaign = Campaign.plan(config, Path(folder))
        rows = [row for path in imports for row in read_imported(path, campaign)]
        campaign.carry_out(progress or (lambda done: None), executor)
        frame = campaign.table(rows)
        if out is not None:
            from solvers.comparison.table import write

            write(frame, Path(folder))
    return frame
