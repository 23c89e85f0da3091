"""Between our states and Ocean's sample sets, for every backend that is a dimod sampler."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from problems import CardinalityQUBO
from solvers.base import Request, State
from solvers.errors import BackendError

if TYPE_CHECKING:
    import dimod

#: The values of a spin, in the dtype that Ocean's samplers take.
SPINS = np.array([-1, 1], dtype=np.int8)


def states_of(sampleset: Any, n: int) -> State:
    """Return the samples of variables ``0 … n - 1``, each as often as it occurred.

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


def empty(n: int) -> State:
    """Return no states at all, shape (0, n)."""
    return np.zeros((0, n), dtype=np.uint8)


def within(request: Request, call: Callable[[], Any]) -> Any:
    """Return what a call to a remote service answers, or None once the time is up.

    The call goes on in a thread of its own that ends with the process: a queue elsewhere
    can't be interrupted, but it need not be waited for.
    """
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(None if request.time_limit is None else request.remaining)
    except TimeoutError:
        if answer.done():  # the call's own error, not ours
            raise
        return None


def connect(sampler: str) -> Any:
    """Open a sampler of dwave-system with the user's own configuration.

    Raises
    ------
    BackendError
        If there is none, or the service can't be reached; the message says what to run.
    """
    import dwave.system

    try:
        return getattr(dwave.system, sampler)()
    except Exception as error:
        raise BackendError(
            f"{sampler} can't be opened with your Ocean configuration: {error}; "
            "'dwave config create' sets it up and 'dwave ping' tests it"
        ) from error
