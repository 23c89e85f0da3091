"""Swap search for cardinality-constrained QUBOs on the CPU."""

from solvers.anneal.solver import Anneal

__all__ = ["Anneal"]
