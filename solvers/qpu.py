"""D-Wave's quantum annealers, through dwave-system and the user's own configuration.

Credentials stay in Ocean's configuration; this module does not read, print or store them.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO
from problems.penalty import Penalty
from solvers.adapters.embedding import (
    Chains,
    CliqueEmbeddings,
    coupled_pairs,
    general_embedding,
)
from solvers.adapters.ocean import (
    call_within,
    check_ocean_config,
    dense_bqm,
    no_states,
    open_sampler,
    sample_states,
)
from solvers.base import Capabilities, Outcome, Request
from solvers.errors import OptionError, UnsupportedError
from solvers.penalised import Penalised
from solvers.scaling import scale_option
from solvers.solution import Stop


@dataclass(frozen=True)
class Qpu(Penalised):
    """Anneal the penalised cost on a quantum processor.

    The model is embedded once: complete couplings as a clique (busclique), others by minorminer.
    If no embedding is found, an error is raised before anything is sent. The time limit covers
    embedding, queue and answer: later samples are not waited for. The best ``num_reads`` of all
    anneals are returned.

    Parameters
    ----------
    sampler : dimod.Sampler and dimod.Structured, optional
        The processor, or a mock; ``DWaveSampler()`` by default, which reads the user's
        own Ocean configuration.
    anneals : int
        Smallest number of anneals; at least ``num_reads`` are made.
    annealing_time : float, optional
        Microseconds of one anneal; the processor's default if omitted.
    chain_strength : float, optional
        Coupling within a chain of qubits; Ocean's uniform torque compensation if omitted.
    embedding : dict, optional
        Qubits of each variable ``0 … n - 1``.
    embedding_timeout : float
        Seconds for minorminer.
    """

    sampler: Any = None
    anneals: int = 100
    annealing_time: float | None = None
    chain_strength: float | None = None
    embedding: Chains | None = None
    embedding_timeout: float = 60.0

    name: ClassVar[str] = "qpu"
    summary: ClassVar[str] = "D-Wave quantum annealer on the penalised cost"
    capabilities: ClassVar[Capabilities] = Capabilities(
        # The largest clique of a fault-free Zephyr Z15, the largest processor so far.
        max_n=232,
        hardware="qpu",
        native_cardinality=False,
        budgets=True,
        groups=True,
        deterministic=False,
        seed=False,
        initial_state=False,
    )
    requires: ClassVar[dict[str, str]] = {
        "dwave.system": "dwave-system>=1.24",
        "minorminer": "minorminer>=0.2.13",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anneals < 1:
            raise OptionError(f"anneals is {self.anneals}; it must be 1 or more")
        if self.sampler is not None and not hasattr(self.sampler, "edgelist"):
            raise OptionError("sampler has no structure to embed in; pass it to solve() itself")

    def check_ready(self) -> None:
        """Check for a token, unless a sampler was given."""
        if self.sampler is None:
            check_ocean_config()

    def scaled(self, exponent: int) -> Qpu:
        """Scale the chain strength, if given, and the penalty."""
        solver = super().scaled(exponent)
        assert isinstance(solver, Qpu)
        if self.chain_strength is None:
            return solver
        strength = scale_option(self.chain_strength, exponent)
        return dataclasses.replace(solver, chain_strength=strength)

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Connect and embed, then sample as in :class:`Penalised`."""
        if self.sampler is not None and self.embedding is not None:
            return super().run(problem, request)
        return self._connected(problem, request, lambda ready: ready.run(problem, request))

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Connect and embed a complete graph, then sample as in :class:`Penalised`.

        The square of the budget couples all variables.
        """
        if self.sampler is not None and self.embedding is not None:
            return super().run_budget(problem, request)
        complete = CardinalityQUBO(np.zeros((problem.n, problem.n)), 0)
        return self._connected(complete, request, lambda ready: ready.run_budget(problem, request))

    def _connected(
        self, problem: CardinalityQUBO, request: Request, run: Callable[[Qpu], Outcome]
    ) -> Outcome:
        """Run with a sampler and an embedding of a problem's couplings."""
        sampler = (
            call_within(request, lambda: open_sampler("DWaveSampler"))
            if self.sampler is None
            else self.sampler
        )
        if sampler is None:
            return Outcome(no_states(problem.n), Stop.TIME_LIMIT)
        try:
            begin = time.perf_counter()
            embedding = self.embedding
            if embedding is None:
                embedding = self._embed(problem, sampler, request)
            seconds = time.perf_counter() - begin
            ready = dataclasses.replace(self, sampler=sampler, embedding=embedding)
            outcome = run(ready)
            outcome.build_seconds += seconds
            return outcome
        finally:
            if self.sampler is None:
                sampler.close()

    def _embed(self, problem: CardinalityQUBO, sampler: Any, request: Request) -> Chains:
        """Find qubits for each variable.

        Raises
        ------
        UnsupportedError
            If no embedding is found.
        """
        n, graph = problem.n, sampler.to_networkx_graph()
        coupled = coupled_pairs(problem)
        found: Chains = {}
        if coupled.all() and graph.graph.get("family") in ("chimera", "pegasus", "zephyr"):
            found = CliqueEmbeddings(graph).find(n)
        elif n <= len(graph):
            edges = [(i, j) for i, j in itertools.combinations(range(n), 2) if coupled[i, j]]
            timeout = min(self.embedding_timeout, request.remaining)
            found = general_embedding(n, edges, graph, timeout)
        if len(found) < n:
            raise UnsupportedError(
                f"solver 'qpu' found no embedding of n = {n} variables on a processor of "
                f"{len(graph)} qubits; choose smaller blocks or another solver"
            )
        return found

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Send one problem and wait for the answer, until the time limit."""
        from dwave.system import FixedEmbeddingComposite

        assert self.embedding is not None
        begin = time.perf_counter()
        composite = FixedEmbeddingComposite(self.sampler, embedding=self.embedding)
        most = self.sampler.properties.get("num_reads_range", (1, 10_000))[1]
        asked: dict[str, Any] = {"num_reads": min(most, max(request.num_reads, self.anneals))}
        if self.annealing_time is not None:
            asked["annealing_time"] = self.annealing_time
        bqm = dense_bqm(form, spin=True)
        build = time.perf_counter() - begin

        def answer() -> Any:
            sampleset = composite.sample(
                bqm, chain_strength=self.chain_strength, return_embedding=True, **asked
            )
            sampleset.resolve()
            return sampleset

        sampleset = call_within(request, answer)
        if sampleset is None:
            return Outcome(no_states(form.n), Stop.TIME_LIMIT, build_seconds=build)
        chains = [len(chain) for chain in self.embedding.values()]
        properties = self.sampler.properties
        broken = sampleset.record.chain_break_fraction
        info = {
            "processor": properties.get("chip_id"),
            "topology": properties.get("topology"),
            "qubits": sum(chains),
            "longest_chain": max(chains),
            "chain_strength": _number(sampleset.info["embedding_context"]["chain_strength"]),
            "chain_break_fraction": float(
                np.average(broken, weights=sampleset.record.num_occurrences)
            ),
            "processor_timing": sampleset.info.get("timing"),
        }
        states = sample_states(sampleset, form.n)
        return Outcome(states, Stop.ITERATION_LIMIT, build_seconds=build, info=info)


def _number(strength: Any) -> Any:
    """Convert a chain strength, one number or one per variable, to floats."""
    if isinstance(strength, dict):
        return {int(v): float(s) for v, s in strength.items()}
    return float(strength)
