"""Circuits measured by a qiskit primitive, a simulator or a real processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.base import State
from solvers.qaoa.simulator import tail_mean


@dataclass(frozen=True)
class MeasuredCircuit:
    """A parametrised circuit and the primitive that runs it.

    Parameters
    ----------
    problem : CardinalityQUBO
        Its energies, divided by ``scale``, are minimised.
    circuit : QuantumCircuit
        Transpiled, with the parameters ``γ₁ … γ_p, β₁ … β_p`` and measurements.
    sampler : BaseSamplerV2
    scale : float
    shots : int
        Measurements per evaluation.
    """

    problem: CardinalityQUBO
    circuit: Any
    sampler: Any
    scale: float
    shots: int

    def objective(self, angles: npt.NDArray[np.float64], tail: float) -> float:
        """Mean energy of the best ``tail`` of one run's measurements."""
        energies = self.problem.energy(self._measure(angles, self.shots)) / self.scale
        return tail_mean(energies, np.full(len(energies), 1 / len(energies)), tail)

    def draw(self, angles: npt.NDArray[np.float64], shots: int, rng: np.random.Generator) -> State:
        """Measure states, shape (shots, n); ``rng`` is not used, since the primitive draws them."""
        return self._measure(angles, shots)

    def _measure(self, angles: npt.NDArray[np.float64], shots: int) -> State:
        result = self.sampler.run([(self.circuit, angles)], shots=shots).result()
        bits = result[0].data.meas.to_bool_array(order="little")
        return np.asarray(bits, dtype=np.uint8)


def primitive_for(sampler: Any, backend: Any) -> Any:
    """Return the given primitive, or one for the backend."""
    if sampler is not None:
        return sampler
    from qiskit.primitives import BackendSamplerV2

    return BackendSamplerV2(backend=backend)


def transpiled(circuit: Any, backend: Any) -> Any:
    """Transpile a circuit to a backend, or to the gates rz, sx, x and cx with full connectivity."""
    from qiskit.transpiler import generate_preset_pass_manager

    if backend is None:
        manager = generate_preset_pass_manager(1, basis_gates=["rz", "sx", "x", "cx"])
    else:
        manager = generate_preset_pass_manager(1, backend=backend)
    return manager.run(circuit)
