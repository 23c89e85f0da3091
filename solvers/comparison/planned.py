"""The runs of a campaign, in a file next to their answers, for processes that follow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from problems.files import write_text
from solvers.errors import CampaignError

PLANNED = "planned.json"


class PlannedRun(NamedTuple):
    """A run by the names of its parts."""

    problem: str
    solver: str
    seed: int


class SolverFacts(BaseModel):
    """Columns that all rows of a solver share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: str
    """JSON of its options."""
    versions: str
    """JSON of distribution → version."""


class Planned(BaseModel):
    """All runs of a campaign, with the columns of the table that do not depend on their answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    time_limit: float = Field(gt=0)
    """Wall seconds of a run."""
    grace: float = Field(gt=0)
    """Seconds after 1.1 times the limit at which a run is killed."""
    jobs: int = Field(ge=1)
    """Number of concurrent runs."""
    problems: dict[str, dict[str, str | bool | int | float | None]]
    """Name of a problem → columns that all its rows share."""
    solvers: dict[str, SolverFacts]
    """By their labels."""
    runs: dict[str, PlannedRun]
    """By their keys."""

    @model_validator(mode="after")
    def _complete(self) -> Planned:
        for key, run in self.runs.items():
            if run.problem not in self.problems or run.solver not in self.solvers:
                raise ValueError(f"run {key!r:.60} has an unknown problem or solver")
        return self

    def rows(self, key: str, answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a run in the table, from its answer in the journal."""
        run = self.runs[key]
        common = self.problems[run.problem] | {
            "run": key,
            "solver": run.solver,
            **self.solvers[run.solver].model_dump(),
            "seed": run.seed,
            "machine": answer["end"].get("machine", ""),
        }
        yield from rows_of(common, answer)

    def save(self, folder: Path) -> None:
        """Write the file, atomically."""
        write_text(folder / PLANNED, self.model_dump_json() + "\n")

    @classmethod
    def load(cls, folder: Path) -> Planned:
        """Read the file of a campaign's folder.

        Raises
        ------
        CampaignError
            If it is missing or damaged.
        """
        path = folder / PLANNED
        again = "the command 'icbs compare' of this folder, repeated, writes it"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise CampaignError(f"{folder} has no {PLANNED}: {again}") from None
        except (OSError, ValidationError) as error:
            raise CampaignError(f"{path} is damaged ({error!s:.300}); {again}") from error


def rows_of(common: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one run: its incumbents, and its end."""
    last = 0.0
    for seconds, energy in answer["trace"]:
        last = max(last, seconds)
        yield {
            **common,
            "row": "incumbent",
            "seconds": seconds,
            "energy": energy,
            "feasible": True,
        }
    end = answer["end"]
    yield {**common, **end, "row": "end", "seconds": max(last, end["seconds"])}
