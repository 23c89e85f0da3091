"""Figures of a problem on quantum hardware: qubits, gates, success, embeddings, classical time.

    from solvers.readiness import assess

    found = assess(problem)
    found.problem, found.logical, found.devices, found.quality
    found.annealers, found.fault_tolerant, found.verdicts

No account, hardware or network is needed. :mod:`solvers.readiness.target` describes hardware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from solvers.readiness.assessment import Assessment, Case, assess, assess_all
    from solvers.readiness.options import Options
    from solvers.readiness.target import Target
    from solvers.readiness.target_files import available_targets, load_target, load_targets

__all__ = [
    "Assessment",
    "Case",
    "Options",
    "Target",
    "assess",
    "assess_all",
    "available_targets",
    "load_target",
    "load_targets",
]

_HOME = {
    "Assessment": "solvers.readiness.assessment",
    "Case": "solvers.readiness.assessment",
    "Options": "solvers.readiness.options",
    "Target": "solvers.readiness.target",
    "assess": "solvers.readiness.assessment",
    "assess_all": "solvers.readiness.assessment",
    "available_targets": "solvers.readiness.target_files",
    "load_target": "solvers.readiness.target_files",
    "load_targets": "solvers.readiness.target_files",
}
__getattr__, __dir__ = attach(globals(), _HOME)
