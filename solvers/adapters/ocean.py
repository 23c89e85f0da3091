"""Conversions and cloud access shared by backends of D-Wave's Ocean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from problems import CardinalityQUBO
from solvers.background import Background
from solvers.base import Request, State
from solvers.errors import BackendError

if TYPE_CHECKING:
    import dimod

#: The values of a spin, in the dtype of Ocean's samplers.
SPINS = np.array([-1, 1], dtype=np.int8)

_REMEDY = "'dwave config create' sets it up and 'dwave ping' tests it"


def sample_states(sampleset: Any, n: int) -> State:
    """Return the samples of variables ``0 … n - 1``, repeated by their number of occurrences.

    Parameters
    ----------
    sampleset : dimod.SampleSet
        Of either vartype.
    n : int

    Returns
    -------
    ndarray of uint8, shape (reads, n)
    """
    columns = [sampleset.variables.index(i) for i in range(n)]
    ones = sampleset.record.sample[:, columns] > 0
    return np.repeat(ones, sampleset.record.num_occurrences, axis=0).astype(np.uint8)


def dense_bqm(form: CardinalityQUBO, spin: bool = False) -> dimod.BinaryQuadraticModel:
    """Return the energy as a BINARY (or SPIN) model, fast for a matrix without zeros.

    dimod adds the two triangles, as our energies do; :func:`problems.formats.bqm.to_bqm`
    is for sparse ones.
    """
    import dimod

    bqm = dimod.BinaryQuadraticModel(form.Q, "BINARY", offset=form.offset)
    return bqm.change_vartype(dimod.SPIN, inplace=True) if spin else bqm


def no_states(n: int) -> State:
    """Return an empty array of states, shape (0, n)."""
    return np.zeros((0, n), dtype=np.uint8)


def call_within(request: Request, call: Callable[[], Any]) -> Any:
    """Call a remote service; return its answer, or None at the time limit.

    The call continues in a daemon thread: a remote queue can't be interrupted, but it need not be
    waited for.
    """
    running = Background(call)
    try:
        error = running.error(None if request.time_limit is None else request.remaining)
    except TimeoutError:
        return None
    if error is not None:
        raise error
    return running.result()


def check_ocean_config() -> None:
    """Check that Ocean finds a token, in its files or the environment.

    Raises
    ------
    BackendError
        The message names the command to run.
    """
    from dwave.cloud.config import load_config

    try:
        found = bool(load_config().get("token"))
    except Exception as error:
        raise BackendError(f"your Ocean configuration can't be read: {error}; {_REMEDY}") from error
    if not found:
        raise BackendError(f"your Ocean configuration has no API token; {_REMEDY}")


def open_sampler(sampler: str) -> Any:
    """Open a sampler of dwave-system with the user's own configuration.

    Raises
    ------
    BackendError
        If there is none, or the service can't be reached; the message names the command to run.
    """
    import dwave.system

    try:
        return getattr(dwave.system, sampler)()
    except Exception as error:
        raise BackendError(
            f"{sampler} can't be opened with your Ocean configuration: {error}; {_REMEDY}"
        ) from error
