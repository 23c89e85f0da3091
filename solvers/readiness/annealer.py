"""Part 5 of readiness: embeddings in an annealer, its access time and its precision.

Annealers have no constraints: the cardinality is a penalty, which couples all variables of a
group. A block with one group is a complete graph, and its size is limited by the largest clique
of the processor.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from problems import CardinalityQUBO
from problems.penalty import penalised, penalty_for
from solvers.adapters.embedding import Chains, coupled_pairs
from solvers.errors import OptionError
from solvers.readiness import programming
from solvers.readiness.problem import DECIDED
from solvers.readiness.processor import Processor, clique_limit, processor_of
from solvers.readiness.target import AnnealerTarget

Method = Literal["clique", "minorminer"]

#: Largest tile parameter of Zephyr graphs that busclique takes.
_LARGEST_TILE = 4
#: Ending of the name of a graph without the target's share of faults.
_FAULTY = ", faulty"
#: Installs what this part needs.
PIP = "pip install 'icbs-pruning[dwave]'"


@dataclass(frozen=True)
class Embedding:
    """A problem on an annealer; figures are None where they need an embedding that is missing."""

    target: str
    """Name of the target."""
    graph: str
    """Such as ``"pegasus P16"``, with ``", faulty"`` if the target's share of faults is removed."""
    method: str
    """``"clique"`` (minorminer's busclique) or ``"minorminer"`` (its heuristic for any graph)."""
    n: int
    """Variables."""
    couplings: int | None = None
    """Coupled pairs of variables, with the penalty; not counted where n is beyond the target."""
    qubits: int | None = None
    """Working qubits of the graph."""
    couplers: int | None = None
    """Working couplers of the graph."""
    largest_clique: int | None = None
    """Variables of the largest clique embedding that is found in the graph; where n exceeds that of
    the graph without faults, the latter, from its formula."""
    found: bool = False
    """Whether an embedding was found."""
    reason: str = ""
    """Reason that none was found."""
    seconds: float | None = None
    """Seconds to embed; for cliques without the table of the processor, which is made once."""
    physical_qubits: int | None = None
    """Qubits of all chains."""
    chain_mean: float | None = None
    """Mean number of qubits of a chain."""
    chain_max: int | None = None
    """Number of qubits of the longest chain."""
    penalty: str | None = None
    """Penalty policy, or ``"fixed"``."""
    penalty_strength: float | None = None
    """Largest strength of a group, in units of the problem's energy."""
    chain_strength: float | None = None
    """Coupling within a chain, by uniform torque compensation, in units of the energy."""
    scale: float | None = None
    """Factor from units of the energy to those of the processor, that fills its ranges."""
    dynamic_range: float | None = None
    """Largest coupling with the penalty over the smallest one of the cost (at least 1 % of the
    largest one of the cost)."""
    bits_needed: float | None = None
    """Bits of a coupling with that range and a sign."""
    bits: float | None = None
    """Bits of the target."""
    resolved_share: float | None = None
    """Share of the couplings of the cost that are not rounded to 0 on the target."""
    chain_break_share: float | None = None
    """Mean share of broken chains of simulated annealing on the embedded problem, rounded to the
    target's bits; no hardware, noise or quantum dynamics."""
    feasible_share: float | None = None
    """Share of those samples with the right cardinalities."""
    anneals: int | None = None
    """Number of anneals of :attr:`access_seconds`."""
    access_seconds: float | None = None
    """Time on the processor: programming + anneals · (anneal + readout + delay), without queue
    and network."""
    skipped: str = ""
    """Reason to leave this part out; the other fields are then empty."""

    @property
    def faulty(self) -> bool:
        """Whether the target's share of faults is removed from the graph."""
        return self.graph.endswith(_FAULTY)


def embedding(
    problem: CardinalityQUBO,
    target: AnnealerTarget,
    *,
    method: Method = "clique",
    faulty: bool = True,
    penalty: str | float = "exchange",
    anneals: int = 100,
    timeout: float = 5.0,
    general_max_n: int = 64,
    mock_max_n: int = 64,
    mock_reads: int = 20,
    seed: int = 0,
) -> Embedding:
    """Embed a problem in an annealer, without hardware, account or network.

    A problem beyond the target, or a missing package, gives a row that says so.

    Parameters
    ----------
    problem : CardinalityQUBO
    target : AnnealerTarget
    method : {"clique", "minorminer"}
        A clique embedding holds any couplings. Minorminer's heuristic may find shorter chains
        where couplings are sparse (several groups without couplings between them).
    faulty : bool
        Whether the target's shares of faulty qubits and couplers are removed.
    penalty : str or float
        A policy of :data:`problems.penalty.POLICIES`, or a strength.
    anneals : int
        Anneals of the access time.
    timeout : float
        Seconds for minorminer's heuristic.
    general_max_n : int
        Largest n for the heuristic.
    mock_max_n : int
        Largest n for simulated annealing of the embedded problem.
    mock_reads : int
        Its samples.
    seed : int
        Seed of faults, heuristic and samples.

    Raises
    ------
    OptionError
        Unknown method, or a number out of range.
    InvalidProblemError
        Unknown penalty policy.
    """
    _check(method, anneals, timeout, mock_reads)
    row = Embedding(target.name, _graph_name(target, faulty), method, problem.n, bits=target.bits)
    zeros, ones = problem.forced_variables()
    if (zeros | ones).all():
        return _skipped(row, DECIDED)
    if target.t is not None and target.t > _LARGEST_TILE:
        return _skipped(
            row, f"t is {target.t}; minorminer's busclique takes {_LARGEST_TILE} or less"
        )
    limit = clique_limit(target)
    if method == "clique" and problem.n > limit:
        reason = _beyond(problem.n, limit, "a graph without faults")
        return dataclasses.replace(row, largest_clique=limit, reason=reason)
    if method == "minorminer" and problem.n > general_max_n:
        reason = f"n is {problem.n}; minorminer is tried up to {general_max_n} (general_max_n)"
        return dataclasses.replace(row, reason=reason)
    try:
        processor = processor_of(target, faulty, seed)
        row = dataclasses.replace(
            row,
            qubits=len(processor.graph),
            couplers=processor.graph.number_of_edges(),
            largest_clique=processor.cliques.largest,
        )
        chains, found = _embedded(row, problem, processor, timeout, seed)
        row = dataclasses.replace(row, **found)
        if not chains:
            return row
        return dataclasses.replace(
            row,
            **_figures(problem, target, processor, chains, penalty, mock_max_n, mock_reads, seed),
            anneals=anneals,
            access_seconds=access_seconds(target, anneals),
        )
    except ImportError as error:
        return _skipped(row, f"embedding needs {error.name or error}: {PIP}")


def embeddings(problem: CardinalityQUBO, target: AnnealerTarget, **options: Any) -> list[Embedding]:
    """Embed a problem by cliques, whole and with faults, and by minorminer with faults.

    Parameters
    ----------
    problem : CardinalityQUBO
    target : AnnealerTarget
    **options
        Of :func:`embedding`.
    """
    kinds: list[tuple[Method, bool]] = [("clique", False), ("clique", True), ("minorminer", True)]
    return [
        embedding(problem, target, method=method, faulty=faulty, **options)
        for method, faulty in kinds
    ]


def access_seconds(target: AnnealerTarget, anneals: int) -> float:
    """Return the time on the processor, ``programming + anneals · (anneal + readout + delay)``.

    D-Wave's formula of the QPU access time, which is charged. Queue, network and 10 to 20 ms
    of overhead are not part of it.
    """
    each = target.anneal_time + target.readout_time + target.delay_time
    return target.programming_time + anneals * each


def largest_embedded(target: AnnealerTarget, faulty: bool = True, seed: int = 0) -> int:
    """Return the largest n of one group that a target holds.

    Raises
    ------
    ImportError
        If minorminer or dwave-graphs is missing.
    """
    return processor_of(target, faulty, seed).cliques.largest


def _embedded(
    row: Embedding,
    problem: CardinalityQUBO,
    processor: Processor,
    timeout: float,
    seed: int,
) -> tuple[Chains, dict[str, Any]]:
    """Return the chains, empty if there are none, and fields of the row."""
    n, largest = problem.n, processor.cliques.largest
    if row.method == "clique" and n > largest:
        return {}, {"reason": _beyond(n, largest, "this graph")}
    coupled = coupled_pairs(problem)
    if row.method == "clique":
        chains, seconds = processor.embed_clique(n)
    else:
        chains, seconds = processor.embed_general(coupled, timeout, seed)
    fields: dict[str, Any] = {
        "seconds": seconds,
        "couplings": int(np.count_nonzero(coupled) - n) // 2,
    }
    if not chains:
        return {}, fields | {"reason": f"minorminer found none in {timeout:g} s (seed {seed})"}
    lengths = [len(chain) for chain in chains.values()]
    return chains, fields | {
        "found": True,
        "physical_qubits": sum(lengths),
        "chain_mean": sum(lengths) / n,
        "chain_max": max(lengths),
    }


def _figures(
    problem: CardinalityQUBO,
    target: AnnealerTarget,
    processor: Processor,
    chains: Chains,
    policy: str | float,
    mock_max_n: int,
    mock_reads: int,
    seed: int,
) -> dict[str, Any]:
    """Return the fields of penalty, precision and samples."""
    penalty = penalty_for(problem, policy)
    form = penalised(problem, penalty)
    programmed = programming.program(form, chains, processor.graph, target)
    ratio = programming.dynamic_range(problem, form)
    fields: dict[str, Any] = {
        "penalty": policy if isinstance(policy, str) else "fixed",
        "penalty_strength": float(penalty.strength.max()),
        "chain_strength": programmed.chain_strength,
        "scale": programmed.scale,
        "dynamic_range": ratio,
        "bits_needed": None if ratio is None else math.log2(ratio) + 1,
        "resolved_share": programming.resolved_share(problem, programmed.scale, target),
    }
    if problem.n <= mock_max_n and programmed.scale is not None:
        broken, states = programming.mock_samples(programmed, chains, target, mock_reads, seed)
        fields["chain_break_share"] = broken
        fields["feasible_share"] = float(np.mean(problem.is_feasible(states)))
    return fields


def _beyond(n: int, largest: int, where: str) -> str:
    return f"n is {n}; the largest clique embedding in {where} has {largest} variables"


def _graph_name(target: AnnealerTarget, faulty: bool) -> str:
    return f"{target.topology} {target.topology[0].upper()}{target.m}{_FAULTY * faulty}"


def _skipped(row: Embedding, reason: str) -> Embedding:
    kept = Embedding(row.target, row.graph, row.method, row.n, bits=row.bits)
    return dataclasses.replace(kept, skipped=reason)


def _check(method: str, anneals: int, timeout: float, mock_reads: int) -> None:
    if method not in ("clique", "minorminer"):
        raise OptionError(f"method is {method!r}; it must be 'clique' or 'minorminer'")
    for name, value in (("anneals", anneals), ("mock_reads", mock_reads)):
        if value < 1:
            raise OptionError(f"{name} is {value}; it must be 1 or more")
    if not timeout > 0:
        raise OptionError(f"timeout is {timeout}; it must be above 0 seconds")
