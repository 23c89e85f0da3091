"""The Combinatorial Brain Surgeon (CBS, arXiv 2203.04466), the method that iCBS iterates."""

from icbs.surgeon.local_search import LocalSearch
from icbs.surgeon.pruning import SurgeonResult, prune_cbs
from icbs.surgeon.random_magnitude import random_magnitude

__all__ = ["LocalSearch", "SurgeonResult", "prune_cbs", "random_magnitude"]
