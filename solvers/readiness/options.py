"""Choices of an assessment, and the packages that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from solvers.errors import OptionError
from solvers.readiness import annealer, fault_tolerant
from solvers.readiness.logical import check_circuit
from solvers.readiness.target import Target
from solvers.readiness.target_files import available_targets, load_targets

#: Packages that each kind of target needs, and the command that installs them.
_NEEDS = {
    "gate": (("qiskit",), "pip install qiskit"),
    "annealer": (("minorminer", "dwave.graphs", "dwave.system"), annealer.PIP),
    "fault-tolerant": (("qdk",), fault_tolerant.PIP),
}


@dataclass(frozen=True)
class Options:
    """Choices of an assessment."""

    targets: tuple[Target, ...] = field(
        default_factory=lambda: tuple(load_targets(available_targets()))
    )
    """Hardware; all targets of the package by default."""
    p: tuple[int, ...] = (1, 2, 4)
    """Layers of QAOA."""
    start: str = "dicke"
    """Initial state of the circuits on devices: ``"dicke"``, ``"status-quo"``, ``"relaxation"``."""
    mixer: str = "ring"
    """Mixer of the circuits on devices: ``"ring"`` or ``"complete"``."""
    min_success: float = 0.01
    """Least probability of a shot without errors at which a circuit fits a processor."""
    classical_seconds: float = 0.5
    """Time limit of the classical solver; 0 for no run."""
    comparison: str | Path | None = None
    """Folder of ``icbs compare``, to be read instead of running the classical solver."""
    shots: int = 1024
    """Shots of a circuit without noise whose best state the classical solver has to match."""
    embedding_seconds: float = 2.0
    """Time limit of minorminer's heuristic."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.targets:
            raise OptionError(f"no targets; name some of {', '.join(available_targets())}")
        if not self.p or list(self.p) != sorted(set(self.p)):
            raise OptionError(f"p is {self.p}; pass distinct numbers of layers in rising order")
        for layers in self.p:
            check_circuit(layers, self.start, self.mixer, "cardinality")
        if not 0 < self.min_success < 1:
            raise OptionError(f"min_success is {self.min_success}; it must lie in (0, 1)")
        if self.shots < 1:
            raise OptionError(f"shots is {self.shots}; it must be 1 or more")
        for name in ("classical_seconds", "embedding_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be 0 or more seconds")

    def missing_packages(self) -> list[str]:
        """Return a sentence for each kind of target whose packages are not installed."""
        found = []
        for kind, (packages, command) in _NEEDS.items():
            missing = [name for name in packages if not _installed(name)]
            if missing and any(target.kind == kind for target in self.targets):
                found.append(f"{kind} targets need {', '.join(missing)}: {command}")
        return found


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
