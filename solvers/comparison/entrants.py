"""The solvers of a campaign: made once, sent to other processes, refused where they can't run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from problems import CardinalityQUBO
from solvers.base import Solver
from solvers.comparison.cases import Case
from solvers.comparison.config import CampaignConfig, SolverSpec
from solvers.comparison.extra import importing
from solvers.errors import CampaignError, SolverError, UnsupportedError, describe, wrap_errors
from solvers.request import checked_reads, make_request
from solvers.solve import resolve
from solvers.validation import is_plain


@dataclass(frozen=True)
class Entrant:
    """A solver with its options, under its label."""

    label: str
    code: bytes = field(repr=False)
    """The solver, pickled."""
    name: str
    options: str
    """JSON of all options, defaults included; what is not plain is named by its type."""
    num_reads: int
    versions: str
    """JSON of distribution → version."""
    stochastic: bool = True
    """Whether its answer depends on a seed, and is not proved."""
    missing: str = ""
    """What is to be set up before it can run on any problem."""


def enter(specs: Sequence[SolverSpec]) -> list[tuple[Entrant, Solver]]:
    """Make every solver of a campaign, with its backend loaded.

    Raises
    ------
    UnknownSolverError, MissingBackendError, OptionError
        If there is no such solver, its backend is not installed, or it has no such option.
    CampaignError
        If it can't be sent to another process.
    """
    return [_entered(spec) for spec in specs]


def _entered(spec: SolverSpec) -> tuple[Entrant, Solver]:
    options = dict(spec.options)
    reads = checked_reads(options.pop("num_reads", 1))
    solver = resolve(spec.solver, options)
    if reads != 1 and not solver.capabilities.num_reads:
        raise CampaignError(f"solver {spec.label!r} can't honour num_reads; leave it out")
    values = {name: getattr(solver, name) for name in solver.options()}
    shown = {k: v if is_plain(v) else type(v).__name__ for k, v in values.items()}
    if reads != 1:
        shown["num_reads"] = reads
    return Entrant(
        label=spec.label,
        code=_code(spec.label, solver),
        name=spec.solver if isinstance(spec.solver, str) else solver.name,
        options=json.dumps(shown, sort_keys=True),
        num_reads=reads,
        versions=json.dumps(solver.versions()),
        stochastic=solver.capabilities.seed and not solver.capabilities.exact,
        missing=_missing(solver),
    ), solver


def _code(label: str, solver: Solver) -> bytes:
    """Pickle a solver, by value where its class is of a script or a notebook."""
    with importing():
        import cloudpickle
    module = sys.modules.get(type(solver).__module__)
    alone = module is not None and not _importable(module.__name__)
    try:
        if alone:
            cloudpickle.register_pickle_by_value(module)
        code: bytes = cloudpickle.dumps(solver)
    except Exception as error:
        raise CampaignError(
            f"solver {label!r} can't be sent to another process ({describe(error)}); name its "
            "class instead, as 'module:Class'"
        ) from error
    finally:
        if alone:
            cloudpickle.unregister_pickle_by_value(module)
    return code


def _importable(module: str) -> bool:
    """Whether another process can import a module by its name."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _missing(solver: Solver) -> str:
    """Say what keeps a solver from running here at all, such as a missing account."""
    try:
        with wrap_errors(solver.name, "is not ready"):
            solver.check_ready()
    except SolverError as error:
        return str(error)
    if solver.capabilities.hardware == "gpu":
        import torch

        if not torch.cuda.is_available():
            return f"solver {solver.name!r} needs a CUDA device; there is none here"
    return ""


def why_unsupported(
    entrant: Entrant, solver: Solver, case: Case, problem: CardinalityQUBO, config: CampaignConfig
) -> str:
    """Say why a solver can't take a problem; empty where it can.

    Raises
    ------
    InvalidProblemError
        If energies of the problem leave float64.
    """
    if entrant.missing:
        return entrant.missing
    asked = settings(solver, config, case)
    try:
        make_request(
            solver, problem, config.time_limit, config.seeds[0] if asked["seed"] else None,
            case.state() if asked["start"] else None, entrant.num_reads, None,
        )  # fmt: skip
    except UnsupportedError as error:
        return str(error).removesuffix("; leave it out")
    return ""


def settings(solver: Solver, config: CampaignConfig, case: Case) -> dict[str, bool]:
    """Say whether a solver gets a seed and the status quo."""
    can = solver.capabilities
    return {
        "seed": can.seed,
        "start": can.initial_state and config.warm_start and bool(case.start),
    }


def digest_of(entrant: Entrant) -> dict[str, Any]:
    """Return what tells one entrant from another, in JSON's types."""
    found = dataclasses.asdict(entrant)
    return {name: found[name] for name in ("label", "name", "options")}
