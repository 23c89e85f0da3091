"""Seconds to simulate QAOA in the space of feasible states, and in all 2ⁿ states.

    python -m benchmarks.qaoa_speed

One random dense problem with k = n/2 is simulated with p = 1 by the solver's simulator, by qiskit's
``Statevector`` and by qiskit-aer of the circuit that is really built, and by NumPy on all 2ⁿ
amplitudes with the same gates, the cost as one diagonal and a Dicke state that costs nothing.
Expectations must agree to 1e-10 of the energies' standard deviation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from problems import CardinalityQUBO
from solvers.qaoa import Qaoa
from solvers.qaoa.angles import default_slopes, ramp
from solvers.qaoa.circuit import MIXERS, cardinality_circuit, mixer_degree, mixer_pairs
from solvers.qaoa.primitive import transpiled
from solvers.qaoa.simulator import Simulator, cardinality_simulator
from solvers.qaoa.space import full_space
from solvers.qaoa.start import Start

#: Runs of the other simulators.
OTHERS = 3
RESULTS = Path(__file__).parent / "results"
Vector = npt.NDArray[np.float64]


def main(
    sizes: Annotated[list[int], typer.Option("--size", help="Variables n.")] = [12, 16, 18, 20],  # noqa: B006
    largest_qiskit: Annotated[int, typer.Option(help="Largest n for qiskit and NumPy.")] = 18,
    repeats: Annotated[int, typer.Option(help="Evaluations, the fastest of which counts.")] = 15,
) -> None:
    """Measure, print and record."""
    Qaoa.require()
    lines = [
        "# Simulation of QAOA",
        "",
        "Dense problem, k = n/2, one layer, one core. *Build*: states, energies and gates of the "
        "solver's simulator; *evaluation*: one expectation. The others are given in seconds for "
        "one expectation, and as multiples of the solver's evaluation; the fastest of "
        f"{repeats} runs counts, and of {OTHERS} of the others. *NumPy* applies the gates of the "
        "mixer to all 2ⁿ amplitudes, without a circuit and without preparing the Dicke state. All "
        "expectations agree to 1e-10 of the "
        "energies' standard deviation.",
        "",
        "| n | mixer | states | build | evaluation | qiskit Statevector | qiskit-aer | NumPy, 2ⁿ |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in sizes:
        for mixer in MIXERS:
            lines.append(_row(n, mixer, repeats, n <= largest_qiskit))
            print(lines[-1], flush=True)
    (RESULTS / "qaoa_speed.md").write_text("\n".join(lines) + "\n")


def _row(n: int, mixer: str, repeats: int, others: bool) -> str:
    Q = np.random.default_rng(n).normal(size=(n, n))
    problem = CardinalityQUBO(Q + Q.T, n // 2)
    angles = ramp(1, default_slopes(mixer_degree(problem, mixer)))
    build, simulator = _timed(lambda: cardinality_simulator(problem, mixer, Start()))
    runs = [_timed(lambda: simulator.objective(angles, 1.0)) for _ in range(repeats)]
    evaluation, expected = min(runs)[0], runs[0][1]
    cells = [f"{n}", mixer, f"{simulator.space.size:,}", _seconds(build), _seconds(evaluation)]
    for run in (_qiskit, _aer, _numpy):
        if not others:
            cells.append("")
            continue
        seconds, found = min(run(problem, mixer, simulator, angles) for _ in range(OTHERS))
        if abs(found - expected) > 1e-10:
            raise RuntimeError(f"{run.__name__}: {found} instead of {expected}")
        cells.append(f"{_seconds(seconds)} ({seconds / evaluation:,.0f}×)")
    return f"| {' | '.join(cells)} |"


def _qiskit(
    problem: CardinalityQUBO, mixer: str, simulator: Simulator, angles: Vector
) -> tuple[float, float]:
    """Evolve qiskit's state vector gate by gate."""
    from qiskit.quantum_info import Statevector

    circuit = _circuit(problem, mixer, simulator, angles)
    seconds, state = _timed(lambda: Statevector(circuit))
    return seconds, float(state.probabilities() @ _all_energies(problem, simulator))


def _aer(
    problem: CardinalityQUBO, mixer: str, simulator: Simulator, angles: Vector
) -> tuple[float, float]:
    """Run the transpiled circuit on qiskit-aer, which fuses gates, with one thread."""
    from qiskit_aer import AerSimulator

    circuit = transpiled(_circuit(problem, mixer, simulator, angles), None)
    circuit.save_statevector()
    backend = AerSimulator(method="statevector", max_parallel_threads=1)
    seconds, result = _timed(lambda: backend.run(circuit).result())
    weights = np.abs(np.asarray(result.get_statevector())) ** 2
    return seconds, float(weights @ _all_energies(problem, simulator))


def _numpy(
    problem: CardinalityQUBO, mixer: str, simulator: Simulator, angles: Vector
) -> tuple[float, float]:
    """Apply phases and exchanges to all amplitudes, an axis for each qubit."""
    n, energies = problem.n, _all_energies(problem, simulator)
    states = full_space(n).states()
    start = np.where(states.sum(axis=1) == problem.k, 1.0 + 0j, 0)
    start /= np.linalg.norm(start)
    pairs = mixer_pairs(problem, mixer)
    gamma, beta = angles

    def run() -> float:
        psi = (start * np.exp(-1j * gamma * energies)).reshape((2,) * n)
        cos, sin = np.cos(beta), 1j * np.sin(beta)
        for i, j in pairs:
            axes = np.moveaxis(psi, (n - 1 - i, n - 1 - j), (0, 1))
            left, right = axes[0, 1].copy(), axes[1, 0]
            axes[0, 1] = cos * left + sin * right
            axes[1, 0] = sin * left + cos * right
        return float(np.abs(psi.ravel()) ** 2 @ energies)

    return _timed(run)


def _circuit(problem: CardinalityQUBO, mixer: str, simulator: Simulator, angles: Vector) -> Any:
    circuit = cardinality_circuit(problem, simulator.scale, 1, mixer)
    bare = circuit.remove_final_measurements(inplace=False)
    return bare.assign_parameters(angles)


def _all_energies(problem: CardinalityQUBO, simulator: Simulator) -> Vector:
    """Energies of all 2ⁿ states in the simulator's unit, by the number of the state."""
    space = full_space(problem.n)
    energies = space.energies(problem) / simulator.scale
    found = np.empty_like(energies)
    found[space.states().astype(np.int64) @ (1 << np.arange(problem.n))] = energies
    return found


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = run()
    return time.perf_counter() - begin, found


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    typer.run(main)
