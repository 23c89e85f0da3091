"""Quantum approximate optimization algorithm, with a preserved or penalised cardinality."""

from solvers.qaoa.solver import Qaoa

__all__ = ["Qaoa"]
