"""Noisy circuits, simulated by qiskit-aer."""

from __future__ import annotations

import importlib.util
from numbers import Real
from typing import Any

import numpy as np

from solvers.errors import MissingBackendError, OptionError

#: Share of the depolarising rate of two-qubit gates that one-qubit gates have.
_ONE_QUBIT = 0.1


def check_noise(noise: Any) -> None:
    """Check a noise model, or a rate.

    Raises
    ------
    OptionError
        If it is neither a rate in (0, 1) nor a noise model.
    MissingBackendError
        If qiskit-aer is not installed.
    """
    is_rate = isinstance(noise, Real) and not isinstance(noise, bool) and 0 < float(noise) < 1
    if not is_rate and not hasattr(noise, "add_all_qubit_quantum_error"):
        raise OptionError(
            f"noise is {noise!r}; pass a depolarising rate in (0, 1), such as 0.003, or a "
            "qiskit_aer.noise.NoiseModel"
        )
    if importlib.util.find_spec("qiskit_aer") is None:
        raise MissingBackendError('noise needs qiskit-aer: pip install "icbs-pruning[quantum]"')


def noise_model(noise: Any) -> Any:
    """Return a noise model; a rate becomes depolarising errors.

    After each CX the state of both qubits is lost with the given rate, after each X and SX that of
    the qubit with a tenth of it. RZ is exact, as on devices, and so is the readout.
    """
    if not isinstance(noise, Real):
        return noise
    from qiskit_aer.noise import NoiseModel, depolarizing_error

    model = NoiseModel(basis_gates=["rz", "sx", "x", "cx"])
    model.add_all_qubit_quantum_error(depolarizing_error(float(noise), 2), ["cx"])
    one = depolarizing_error(float(noise) * _ONE_QUBIT, 1)
    model.add_all_qubit_quantum_error(one, ["sx", "x"])
    return model


class NoisySampler:
    """A primitive that runs circuits under a noise model, each time with a new seed.

    Parameters
    ----------
    noise : float or qiskit_aer.noise.NoiseModel
        See :func:`noise_model`.
    rng : numpy.random.Generator
        Draws the seeds.
    """

    def __init__(self, noise: Any, rng: np.random.Generator) -> None:
        from qiskit_aer import AerSimulator

        self._backend = AerSimulator(noise_model=noise_model(noise))
        self._rng = rng

    def run(self, pubs: Any, shots: int) -> Any:
        """Run circuits with their parameters."""
        from qiskit_aer.primitives import SamplerV2

        seed = int(self._rng.integers(2**31))
        return SamplerV2.from_backend(self._backend, seed=seed).run(pubs, shots=shots)
