"""Graphs of annealers, whole and with faults, and the embeddings found in them."""

from __future__ import annotations

import itertools
import time
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.adapters.embedding import Chains, CliqueEmbeddings, general_embedding
from solvers.readiness.target import AnnealerTarget

Pairs = npt.NDArray[np.bool_]


def clique_limit(target: AnnealerTarget) -> int:
    """Return the size of the largest clique embedding of a graph without faults, for m above 2.

    ``12(m - 1)`` for Pegasus (Boothby and others, arXiv 2003.00133) and ``4tm - 2t`` for Zephyr
    (Boothby, King and Raymond, Zephyr Topology of D-Wave Quantum Processors, 2021); busclique
    finds embeddings of this size. An upper limit for m = 2.
    """
    if target.topology == "pegasus":
        return 12 * (target.m - 1)
    assert target.t is not None
    return 4 * target.t * target.m - 2 * target.t


class Processor:
    """Working qubits and couplers of an annealer, with the embeddings found so far.

    Parameters
    ----------
    target : AnnealerTarget
    faulty : bool
        Whether the target's shares of qubits and couplers are removed, chosen at random.
    seed : int
        Seed of that choice.
    """

    def __init__(self, target: AnnealerTarget, faulty: bool, seed: int) -> None:
        from dwave.graphs import pegasus_graph, zephyr_graph

        self.graph: Any = (
            pegasus_graph(target.m)
            if target.topology == "pegasus"
            else zephyr_graph(target.m, target.t)
        )
        if faulty:
            rng = np.random.default_rng(seed)
            nodes = sorted(self.graph.nodes)
            self.graph.remove_nodes_from(_drawn(nodes, target.faulty_qubits, rng))
            edges = sorted(map(sorted, self.graph.edges))
            self.graph.remove_edges_from(_drawn(edges, target.faulty_couplers, rng))
        self._found: dict[Any, tuple[Chains, float]] = {}

    @cached_property
    def cliques(self) -> CliqueEmbeddings:
        """Embeddings of complete graphs."""
        return CliqueEmbeddings(self.graph)

    def embed_clique(self, n: int) -> tuple[Chains, float]:
        """Embed a complete graph of ``n`` variables, of at most ``cliques.largest``.

        Returns
        -------
        chains : dict of int to tuple of int
        seconds : float
            Without the time of the table of all cliques, which is made once for a processor.
        """
        if n not in self._found and n <= self.cliques.largest:
            begin = time.perf_counter()
            chains = self.cliques.find(n)
            self._found[n] = chains, time.perf_counter() - begin
        return self._found.get(n, ({}, 0.0))

    def embed_general(self, coupled: Pairs, timeout: float, seed: int) -> tuple[Chains, float]:
        """Embed a graph of couplings by minorminer.

        Parameters
        ----------
        coupled : ndarray of bool, shape (n, n)
            Coupled pairs of variables, symmetric.
        timeout : float
            Seconds.
        seed : int

        Returns
        -------
        chains : dict of int to tuple of int
            Empty if none was found in time.
        seconds : float
        """
        n = len(coupled)
        key = n, coupled.tobytes(), timeout, seed
        if key not in self._found:
            pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if coupled[i, j]]
            begin = time.perf_counter()
            chains = general_embedding(n, pairs, self.graph, timeout, seed)
            self._found[key] = chains, time.perf_counter() - begin
        return self._found[key]


@lru_cache(maxsize=16)
def processor_of(target: AnnealerTarget, faulty: bool = True, seed: int = 0) -> Processor:
    """Return the processor of a target, made once in a process; see :class:`Processor`."""
    return Processor(target, faulty, seed)


def _drawn(items: list[Any], share: float, rng: np.random.Generator) -> list[Any]:
    chosen = rng.choice(len(items), round(share * len(items)), replace=False)
    return [items[i] for i in chosen]
