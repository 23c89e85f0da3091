"""Metrics of circuits that are simulated and need not be built for each problem."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from problems import CardinalityQUBO
from solvers.qaoa.circuit import cardinality_circuit, circuit_metrics, penalty_circuit
from solvers.qaoa.primitive import transpiled
from solvers.qaoa.start import Start


def metrics_of(problem: CardinalityQUBO, p: int, mixer: str | None, start: Start) -> dict[str, int]:
    """Return the metrics of a circuit, transpiled to CX and rotations of one qubit.

    They depend on the couplings that are not 0, the groups and the start. Circuits of the same
    structure, such as those of all blocks of a pruning run, are built once.

    Parameters
    ----------
    problem : CardinalityQUBO
    p : int
    mixer : str or None
        None for the penalty form.
    start : Start
    """
    ones = None if start.state is None else start.state.tobytes()
    return dict(
        _metrics(
            problem.n,
            np.packbits(problem.Q != 0).tobytes(),
            problem.groups.astype(np.int64).tobytes(),
            tuple(problem.cardinalities.tolist()),
            p,
            mixer,
            ones,
            start.odds is not None,
        )
    )


@lru_cache(maxsize=256)
def _metrics(
    n: int,
    couplings: bytes,
    groups: bytes,
    cardinalities: tuple[int, ...],
    p: int,
    mixer: str | None,
    ones: bytes | None,
    warm: bool,
) -> dict[str, int]:
    bits = np.unpackbits(np.frombuffer(couplings, np.uint8), count=n * n).reshape(n, n)
    labels = np.frombuffer(groups, np.int64)
    # Coefficients and odds of no special value, of which a transpiler could cancel gates.
    Q = bits * (1 + np.add.outer(np.arange(n), np.arange(n)) / np.pi)
    state = None if ones is None else np.frombuffer(ones, np.uint8)
    start = Start(state, np.exp(np.arange(1, n + 1) / np.pi) if warm else None)
    problem = CardinalityQUBO(Q, cardinalities, groups=labels)
    if mixer is None:
        circuit = penalty_circuit(problem, 1.0, p, start)
    else:
        circuit = cardinality_circuit(problem, 1.0, p, mixer, start)
    return circuit_metrics(transpiled(circuit, None))
