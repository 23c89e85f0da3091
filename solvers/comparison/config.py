"""Configuration of a campaign: problems, solvers, seeds, time limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from problems.suggest import did_you_mean
from solvers.errors import CampaignError

#: Shortest time limit, in seconds: below, the overhead of a call is comparable to the search.
RESOLUTION = 0.01


class ProblemSpec(BaseModel):
    """A problem, or several by the name of a set or a pattern of files."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    path: str = ""
    """File that :mod:`problems.formats` reads, a pattern of such files, or ``library:NAME``."""
    problem: Any = None
    """A :class:`problems.CardinalityQUBO` instead of a path; only from Python."""
    name: str = ""
    """Name in the table; that of the file or in the library if omitted."""
    family: str = ""
    """Group of problems in the report."""
    start: Any = None
    """Status quo: an ``.npy`` file of 0/1, or the state itself, shape (n,)."""
    best: float | None = None
    """Lowest energy known."""
    proved: bool = False
    """Whether ``best`` is proved to be optimal."""
    format: str | None = None
    """Format of the file; inferred from its extension if omitted."""
    k: int | None = None
    """Cardinality, for files that contain none."""
    free: bool = False
    """Whether the file is a QUBO without a cardinality (:mod:`problems.free`)."""

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return {"path": str(value)}
        if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str):
            return _named(*value)
        return value if isinstance(value, Mapping | ProblemSpec) else {"problem": value}

    @model_validator(mode="after")
    def _one_source(self) -> ProblemSpec:
        if bool(self.path) == (self.problem is not None):
            raise ValueError("name a path or pass a problem, one of the two")
        return self


class SolverSpec(BaseModel):
    """A solver with its options and label."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    solver: Any
    """Registered name, ``module:Class``, or an instance (from Python)."""
    label: str
    """Name in the table."""
    options: dict[str, Any] = {}
    """The solver's own options; ``num_reads`` is passed to :func:`solvers.solve`."""


def _solver_specs(given: Any) -> Any:
    """Normalise a list of solvers: names, (name, options), {label: …}, instances."""
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",")]
    if isinstance(given, Mapping):
        return tuple(_solver_spec(entry, str(label)) for label, entry in given.items())
    if isinstance(given, list | tuple):
        found: list[SolverSpec] = []
        for entry in given:
            if isinstance(entry, Mapping):
                found += _solver_specs(entry)
            else:
                found.append(entry if isinstance(entry, SolverSpec) else _solver_spec(entry, ""))
        return tuple(found)
    return (_solver_spec(given, ""),)


def _solver_spec(given: Any, label: str) -> SolverSpec:
    solver, options = given, {}
    if isinstance(given, tuple | list) and len(given) == 2:
        solver, options = given
    elif given is None or isinstance(given, Mapping):
        # `anneal: {}`, `qaoa: {p: 3}`, `deep: {solver: qaoa, p: 9}`
        options = dict(given or {})
        solver = options.pop("solver", label)
    if not isinstance(options, Mapping):
        raise ValueError(f"options of {label or solver!r} are {options!r}; pass names and values")
    if not label:
        label = solver if isinstance(solver, str) else _own_name(solver)
        if options:
            shown = ", ".join(f"{name}={value}" for name, value in options.items())
            label = f"{label} ({shown})"
    return SolverSpec(solver=solver, label=label, options=dict(options))


def _own_name(solver: Any) -> str:
    name = getattr(solver, "name", None)
    return name if isinstance(name, str) else type(solver).__name__


def _listed(given: Any) -> Any:
    """Accept a single problem, or names separated by commas, as a list."""
    if isinstance(given, str):
        return tuple(part for part in (p.strip() for p in given.split(",")) if part)
    if isinstance(given, Mapping) and not {"path", "problem"} & set(given):
        return tuple(_named(name, entry) for name, entry in given.items())
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _named(name: str, entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return {"name": name} | dict(entry)
    return {"name": name, "path" if isinstance(entry, str | Path) else "problem": entry}


def _counted(given: Any) -> Any:
    """Accept a number of seeds as the seeds 0, 1, 2, …."""
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise ValueError(f"{given} seeds give no runs; pass 1 or more")
        return tuple(range(given))
    return given


class CampaignConfig(BaseModel):
    """Problems × solvers × seeds under a time limit.

    Read from a file by ``icbs compare --config FILE.yaml``, or created in Python, which also
    accepts the short forms of :func:`solvers.compare`.

    Examples
    --------
    >>> CampaignConfig(problems="library:small", solvers={"qaoa": {"p": 3}}, seeds=2).seeds
    (0, 1)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    problems: Annotated[tuple[ProblemSpec, ...], BeforeValidator(_listed), Field(min_length=1)]
    """Files, patterns of files, ``library:NAME``, ``library:SET``, or mappings with more fields."""
    solvers: Annotated[tuple[SolverSpec, ...], BeforeValidator(_solver_specs), Field(min_length=1)]
    """Names, or labels with options: ``qaoa: {p: 3}``, ``deep: {solver: qaoa, p: 9}``."""
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_counted), Field(min_length=1)
    ] = (0, 1, 2)
    """A number of seeds (0, 1, 2, …), or the seeds themselves."""
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Wall time of a run in seconds."""
    cores: Annotated[int, Field(ge=1)] = 1
    """CPUs per run: its process is bound to this many, and its libraries use this many threads."""
    jobs: Annotated[int, Field(ge=1)] | None = None
    """Concurrent runs; as many as the CPUs allow if omitted."""
    warm_start: bool = True
    """Whether solvers that accept a start get the status quo, if a problem has one."""
    restart: bool = True
    """Whether a solver that returns early without a proof is started again with another seed,
    until the time limit; the best answer counts. Quantum processors and cloud services are called
    once."""
    grace: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Seconds after 1.1 times the time limit at which a process is killed."""

    @model_validator(mode="after")
    def _sensible(self) -> CampaignConfig:
        if self.time_limit < RESOLUTION:
            raise ValueError(
                f"time_limit is {self.time_limit:g} s; use {RESOLUTION:g} or more: below, the "
                "overhead of a call is measured instead of the search"
            )
        labels = [spec.label for spec in self.solvers]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(
                f"two solvers are labelled {twice[0]!r}; give each its own label, such as "
                "{slow: {solver: neal, num_sweeps: 9999}}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} contain a duplicate; remove it")
        return self

    @classmethod
    def of(cls, **settings: Any) -> CampaignConfig:
        """Check settings.

        Raises
        ------
        CampaignError
            If a setting is unknown or out of range; the message names it.
        """
        for name in settings:
            if name not in cls.model_fields:
                known = list(cls.model_fields)
                raise CampaignError(
                    f"unknown setting {name!r}{did_you_mean(name, known)}; known: "
                    f"{', '.join(known)}"
                )
        try:
            return cls(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            what = first["msg"].removeprefix("Value error, ")
            given = first.get("input")
            shown = f" (given: {given!r:.80})" if first["type"] != "value_error" else ""
            raise CampaignError(f"{where + ': ' if where else ''}{what}{shown}") from error
