"""Minor embeddings: chains of qubits that stand for the variables of a problem."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO

#: Qubits of each variable ``0 … n - 1``.
Chains = dict[int, tuple[int, ...]]
Result = TypeVar("Result")

_LOCK = threading.Lock()
_TRIALS = 10


def coupled_pairs(problem: CardinalityQUBO) -> npt.NDArray[np.bool_]:
    """Return which variables the penalised cost couples, shape (n, n), true on the diagonal.

    They are those with a coefficient in ``Q``, and those of one group: the square of a
    cardinality constraint is a complete graph.
    """
    pairs: npt.NDArray[np.bool_] = problem.Q != 0
    pairs |= problem.groups[:, None] == problem.groups[None, :]
    return pairs


class CliqueEmbeddings:
    """Embeddings of complete graphs in one Chimera, Pegasus or Zephyr graph, by busclique.

    Uses the cache on disk that Ocean's own composites use. Without the cache, busclique may hang
    on small graphs. With it, only one thread at a time may call it, and a call is repeated if
    another process cleans up the cache at the same time.

    Parameters
    ----------
    graph : networkx.Graph
        With the attributes of dwave-graphs; qubits and couplers may be missing.
    """

    def __init__(self, graph: Any) -> None:
        from minorminer.busclique import busgraph_cache

        self._cache = _repeated(lambda: busgraph_cache(graph))

    def find(self, n: int) -> Chains:
        """Embed a complete graph of ``n`` variables; empty if none is found."""
        return _as_chains(_repeated(lambda: self._cache.find_clique_embedding(n)))

    @cached_property
    def largest(self) -> int:
        """Number of variables of the largest complete graph that is found."""
        return len(_repeated(self._cache.largest_clique))


def general_embedding(
    n: int,
    pairs: Iterable[tuple[int, int]],
    graph: Any,
    timeout: float,
    seed: int | None = None,
) -> Chains:
    """Embed any graph of variables ``0 … n - 1`` by minorminer; empty if none is found.

    Parameters
    ----------
    n : int
    pairs : iterable of (int, int)
        Coupled variables.
    graph : networkx.Graph
        Qubits and couplers.
    timeout : float
        Seconds.
    seed : int, optional
        Seed of the heuristic.
    """
    from minorminer import find_embedding

    loops = [(i, i) for i in range(n)]  # without a loop, a variable without couplings has no chain
    found = find_embedding(
        [*pairs, *loops], graph.edges, timeout=max(1e-3, timeout), random_seed=seed
    )
    return _as_chains(found) if len(found) == n else {}


def _as_chains(found: dict[Any, Any]) -> Chains:
    return {int(i): tuple(chain) for i, chain in found.items()}


def _repeated(call: Callable[[], Result]) -> Result:
    trial = 1
    while True:
        try:
            with _LOCK:
                return call()
        except FileNotFoundError:
            if trial == _TRIALS:
                raise
            trial += 1
