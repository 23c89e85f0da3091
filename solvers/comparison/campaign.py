"""A campaign: every solver on every problem with every seed, each run once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solvers.comparison.cases import Case, examine
from solvers.comparison.config import CampaignConfig
from solvers.comparison.entrants import Entrant, digest_of, enter, settings, why_unsupported
from solvers.comparison.journal import PROBLEMS, Journal, check_folder
from solvers.comparison.pace import Pace
from solvers.comparison.places import Task, carry_out, end_all, room
from solvers.comparison.planned import Planned, PlannedRun, SolverFacts
from solvers.comparison.records import Run, digest, key_of, without_states
from solvers.comparison.refute import refuted
from solvers.errors import CampaignError, describe

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Progress:
    """Progress of a campaign, after a run."""

    done: int
    total: int
    remaining: float
    """Estimated seconds until the end, from each solver's mean so far."""
    failures: int
    """Runs that failed or were killed."""
    run: Run
    """The run that has just ended."""


@dataclass
class Campaign:
    """A campaign that is checked and ready to run.

    Made by :meth:`plan`.
    """

    config: CampaignConfig
    folder: Path
    cases: dict[str, Case]
    entrants: dict[str, Entrant]
    runs: list[Run]
    refused: dict[str, str] = field(default_factory=dict)
    """Key of a run → reason why its solver does not take its problem."""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key of a run → its answer (:func:`solvers.comparison.worker.perform`)."""

    @classmethod
    def plan(cls, config: CampaignConfig, folder: Path) -> Campaign:
        """Create the solvers, read every problem once, and list the runs.

        Parameters
        ----------
        config : CampaignConfig
        folder : Path
            Of the campaign; problems that were passed as objects are written there.

        Raises
        ------
        CampaignError, SolverError, InvalidProblemError, FormatError, OSError
            If the campaign can't run as configured.
        """
        check_folder(folder)
        if config.jobs is not None and config.jobs > room(config.cores):
            raise CampaignError(
                f"{config.jobs} concurrent runs of {config.cores} cores do not fit: "
                f"this machine has room for {room(config.cores)}; lower jobs or cores"
            )
        if not room(config.cores):
            raise CampaignError(
                f"a run of {config.cores} cores does not fit: this process may use {room(1)}"
            )
        entered = enter(config.solvers)
        campaign = cls(config, folder, {}, {entrant.label: entrant for entrant, _ in entered}, [])
        for case, problem in examine(config.problems, folder / PROBLEMS):
            campaign.cases[case.name] = case
            for entrant, solver in entered:
                why = why_unsupported(entrant, solver, case, problem, config)
                start = settings(solver, config, case)["start"]
                campaign._add(case, entrant, start, why)
        return campaign

    def _add(self, case: Case, entrant: Entrant, start: bool, why: str) -> None:
        for seed in self.config.seeds:
            key = key_of(case, entrant, seed, self.config.time_limit)
            self.runs.append(
                Run(
                    key, case.name, entrant.label, seed, self.config.time_limit,
                    entrant.num_reads, start, self.config.restart,
                )
            )  # fmt: skip
            if why:
                self.refused[key] = why

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that identify this campaign."""
        config = self.config
        return {
            "problems": {
                name: f"{case.hash[:16]} {digest(case.start)[:8]}"
                for name, case in self.cases.items()
            },
            "solvers": {entrant.label: digest_of(entrant) for entrant in self.entrants.values()},
            "seeds": list(config.seeds),
            "time_limit": config.time_limit,
            "cores": config.cores,
            "warm_start": config.warm_start,
            "restart": config.restart,
        }

    @property
    def jobs(self) -> int:
        """Number of concurrent runs."""
        return self.config.jobs or room(self.config.cores)

    @property
    def longest(self) -> float:
        """Longest time in seconds, if no solver exceeds its limit."""
        return (len(self.runs) - len(self.refused)) * self.config.time_limit / self.jobs

    def carry_out(
        self,
        progress: Callable[[Progress], object] = lambda progress: None,
        executor: Executor | None = None,
        on_start: Callable[[], object] = lambda: None,
    ) -> None:
        """Carry out the runs that are not done yet.

        Parameters
        ----------
        progress : callable, optional
            Called with a :class:`Progress` after each run.
        executor : concurrent.futures.Executor, optional
            Executor that calls :func:`solvers.comparison.places.carry_out`, such as Dask's;
            :attr:`jobs` threads of this process if omitted.
        on_start : callable, optional
            Called before the first run, when the folder can be followed.

        Raises
        ------
        CampaignError
            If the folder is another campaign's, damaged or in use.
        KeyboardInterrupt
            After all solvers were stopped; finished runs are kept.
        """
        with Journal(self.folder, self.identity) as journal:
            keys = {run.key for run in self.runs}
            self.answers |= {k: answer for k, answer in journal.done.items() if k in keys}
            for key, why in self.refused.items():
                if key not in journal.done:
                    journal.append(key, without_states("unsupported", why))
                self.answers[key] = journal.done[key]
            left = [run for run in self.runs if run.key not in self.answers]
            pace = Pace((run.solver for run in left), self.config.time_limit, self.jobs)
            self.planned.save(self.folder)
            on_start()
            with closing(self._answers(left, executor)) as ended:
                for run, answer in ended:
                    journal.append(run.key, answer)
                    self.answers[run.key] = journal.done[run.key]
                    pace.add(run.solver, self.answers[run.key]["end"]["seconds"])
                    progress(self._progress(pace.remaining, run))

    def _answers(
        self, runs: list[Run], executor: Executor | None
    ) -> Generator[tuple[Run, dict[str, Any]], None, None]:
        """Yield each run with its answer, in the order in which they end."""
        pool = executor or ThreadPoolExecutor(self.jobs)
        asked: dict[Future[dict[str, Any]], Run] = {}
        try:
            for run in runs:
                asked[pool.submit(carry_out, self._task(run))] = run
            for future in as_completed(asked):
                try:
                    answer = future.result()
                except Exception as error:  # raised by the executor, such as a lost machine
                    answer = without_states("failed", describe(error))
                yield asked.pop(future), answer
        finally:
            for future in asked:
                future.cancel()
            if executor is None:
                if asked:
                    end_all()  # so that no thread waits for a solver
                pool.shutdown()

    def _task(self, run: Run) -> Task:
        code = self.entrants[run.solver].code
        return Task(run, self.cases[run.problem], code, self.config.cores, self.config.grace)

    def table(self, imported: list[dict[str, Any]] | None = None) -> DataFrame:
        """Return the table of the finished runs, and of external ones if given.

        Raises
        ------
        MissingBackendError
            If pandas is not installed.
        """
        from solvers.comparison.table import checked, frame_of

        rows = [
            row
            for run in self.runs
            if (answer := self.answers.get(run.key)) is not None
            for row in self.planned.rows(run.key, answer)
        ]
        return checked(frame_of(refuted([*rows, *(imported or [])], self.cases)))

    @cached_property
    def planned(self) -> Planned:
        """The runs as another process reads them."""
        return Planned(
            time_limit=self.config.time_limit,
            grace=self.config.grace,
            jobs=self.jobs,
            problems={name: self.common(case) for name, case in self.cases.items()},
            solvers={
                label: SolverFacts(options=entrant.options, versions=entrant.versions)
                for label, entrant in self.entrants.items()
            },
            runs={run.key: PlannedRun(run.problem, run.solver, run.seed) for run in self.runs},
        )

    def _progress(self, remaining: float, run: Run) -> Progress:
        statuses = [answer["end"]["status"] for answer in self.answers.values()]
        return Progress(
            done=len(self.answers),
            total=len(self.runs),
            remaining=remaining,
            failures=sum(status in ("failed", "timeout") for status in statuses),
            run=run,
        )

    def common(self, case: Case) -> dict[str, Any]:
        """Return the columns that all rows of a problem share."""
        return {
            "problem": case.name,
            "family": case.family,
            "n": case.n,
            "k": case.k,
            "groups": case.groups,
            "time_limit": self.config.time_limit,
            "best_known": case.best,
            "best_proved": case.proved,
            "start_energy": case.start_energy,
            "start_kind": case.start_kind,
            "cores": self.config.cores,
        }
