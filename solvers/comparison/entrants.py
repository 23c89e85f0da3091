"""Solvers of a campaign: created once, pickled, and checked against each problem."""

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
    """JSON of all options including defaults; objects are named by their type."""
    num_reads: int
    versions: str
    """JSON of distribution → version."""
    stochastic: bool = True
    """Whether its answer depends on a seed and is not proved."""
    missing: str = ""
    """Missing requirement, such as an account; empty if it can run here."""


def enter(specs: Sequence[SolverSpec]) -> list[tuple[Entrant, Solver]]:
    """Create every solver of a campaign, with its backend loaded.

    Raises
    ------
    UnknownSolverError, MissingBackendError, OptionError
        If there is no such solver, its backend is not installed, or it has no such option.
    CampaignError
        If it can't be sent to another process.
    """
    return [_entrant(spec) for spec in specs]


def _entrant(spec: SolverSpec) -> tuple[Entrant, Solver]:
    options = dict(spec.options)
    reads = checked_reads(options.pop("num_reads", 1))
    solver = resolve(spec.solver, options)
    if reads != 1 and not solver.capabilities.num_reads:
        raise CampaignError(f"solver {spec.label!r} does not support num_reads; omit it")
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
    """Pickle a solver, by value if its class is defined in a script or a notebook."""
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
    """Return what prevents a solver from running here, such as a missing account."""
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
    """Return the reason why a solver can't take a problem; empty if it can.

    Raises
    ------
    InvalidProblemError
        If energies of the problem overflow float64.
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
        return str(error).removesuffix("; omit it")
    return ""


def settings(solver: Solver, config: CampaignConfig, case: Case) -> dict[str, bool]:
    """Return whether a solver gets a seed and the status quo."""
    can = solver.capabilities
    return {
        "seed": can.seed,
        "start": can.initial_state and config.warm_start and bool(case.start),
    }


def digest_of(entrant: Entrant) -> dict[str, Any]:
    """Return the fields that identify an entrant, in JSON's types."""
    found = dataclasses.asdict(entrant)
    return {name: found[name] for name in ("label", "name", "options")}
