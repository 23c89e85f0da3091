"""Figures of a problem on quantum hardware: qubits, gates, success, embeddings, classical time.

No account, hardware or network is needed. :mod:`solvers.readiness.target` describes hardware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from solvers.readiness.target import Target, available_targets, load_target, load_targets

__all__ = ["Target", "available_targets", "load_target", "load_targets"]

_HOME = {
    "Target": "solvers.readiness.target",
    "available_targets": "solvers.readiness.target",
    "load_target": "solvers.readiness.target",
    "load_targets": "solvers.readiness.target",
}
__getattr__, __dir__ = attach(globals(), _HOME)
