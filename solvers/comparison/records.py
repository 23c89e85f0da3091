"""A run of a campaign, and the key of its answer in the journal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from solvers.comparison.cases import Case
from solvers.comparison.entrants import Entrant


@dataclass(frozen=True)
class Run:
    """A solver's run on a problem, with one seed."""

    key: str
    problem: str
    """Name of the case."""
    solver: str
    """Label of the entrant."""
    seed: int
    time_limit: float
    num_reads: int = 1
    start: bool = False
    """Whether the solver gets the status quo."""
    restart: bool = False
    """Whether the solver is started again while time is left."""


def key_of(case: Case, entrant: Entrant, seed: int, time_limit: float) -> str:
    """Return the key of a run: 24 hexadecimal digits of a hash of its inputs."""
    return digest(
        [case.name, case.hash, entrant.label, entrant.name, entrant.options, seed, time_limit]
    )


def digest(content: Any) -> str:
    """Return 24 hexadecimal digits of the SHA-256 of JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def without_states(status: str, why: str, seconds: float = 0.0) -> dict[str, Any]:
    """Return the answer of a run that found no state, with the reason."""
    end = {"seconds": seconds, "energy": None, "feasible": False, "status": status, "error": why}
    return {"trace": [], "end": end, "x": None}
