"""Solver ``anneal-gpu``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from problems import CardinalityQUBO
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import OptionError
from solvers.gpu.batch import TabuParameters
from solvers.gpu.device import device_name, find_device, warn_fallback
from solvers.gpu.large import WIDTH, search_large
from solvers.gpu.search import MAX_SLOTS, SearchResult, search
from solvers.registry import create
from solvers.solution import Stop


@dataclass(frozen=True)
class AnnealGpu(Solver):
    """Swap tabu search with cached fields on a GPU, with all problems and reads in one launch.

    Without a CUDA device or Triton, the CPU solver "anneal" is used, with a warning
    (:class:`solvers.gpu.GpuFallbackWarning`) and ``info["fallback"]``. A time limit includes the
    compilation of the kernels, some seconds at the first use of a size.

    Parameters
    ----------
    tenure : int, default 4
        A moved variable is tabu for tenure … 2·tenure - 1 swaps.
    stall : int, default 25
        Swaps without a better state after which a read returns to its best state and kicks.
    kick : int, default 6
        A kick has kick … 2·kick - 1 swaps of random variables.
    patience : int, optional
        Swaps without a better state after which a read without a time limit stops; about
        2n + 500 when omitted.
    device : str, optional
        A CUDA device; the current one when omitted.
    """

    tenure: int = 4
    stall: int = 25
    kick: int = 6
    patience: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for option in ("tenure", "stall", "kick", "patience"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise OptionError(f"{option} is {value}; it must be 1 or more")

    name: ClassVar[str] = "anneal-gpu"
    summary: ClassVar[str] = "swap tabu search, many problems and reads in one launch (GPU)"
    capabilities: ClassVar[Capabilities] = Capabilities(hardware="gpu", groups=True, batches=True)

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Search all reads in parallel; the first from the initial state, if given."""
        return self.run_batch([problem], [request])[0]

    def run_batch(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
    ) -> list[Outcome]:
        """Search all reads of all problems in parallel."""
        device = find_device(self.device)
        if isinstance(device, str):
            return _on_cpu(problems, requests, device)
        record = {"device": device_name(device)}
        found = self.search(problems, requests, device)
        return [_outcome(f, r, record) for f, r in zip(found, requests, strict=True)]

    def search(
        self,
        problems: Sequence[CardinalityQUBO],
        requests: Sequence[Request],
        device: torch.device,
    ) -> list[SearchResult]:
        """Search, and leave the states on the device."""
        small = [i for i, problem in enumerate(problems) if problem.n <= MAX_SLOTS]
        chosen = [problems[i] for i in small]
        found = dict(
            zip(
                small,
                search(chosen, [requests[i] for i in small], self.tabu_parameters, device),
                strict=True,
            )
        )
        for i in set(range(len(problems))) - set(small):
            parameters = self.tabu_parameters(WIDTH)
            found[i] = search_large(problems[i], requests[i], parameters, device)
        return [found[i] for i in range(len(problems))]

    def tabu_parameters(self, slots: int) -> TabuParameters:
        """Return the parameters of a search with a number of slots per program."""
        patience = 2 * slots + 500 if self.patience is None else self.patience
        return TabuParameters(self.tenure, self.stall, self.kick, patience)


def _outcome(found: SearchResult, request: Request, record: dict[str, str]) -> Outcome:
    begin = time.perf_counter()
    samples = found.states.cpu().numpy()
    stop = Stop.CONVERGED if request.time_limit is None else Stop.TIME_LIMIT
    return Outcome(
        samples,
        stop,
        build_seconds=found.build_seconds,
        decode_seconds=time.perf_counter() - begin,
        info=record | {"swaps": found.swaps},
    )


def _on_cpu(
    problems: Sequence[CardinalityQUBO], requests: Sequence[Request], reason: str
) -> list[Outcome]:
    """Solve with the CPU solver, and record the reason."""
    warn_fallback(reason)
    cpu = create("anneal")
    if len(problems) == 1:
        outcomes = [cpu.run(problems[0], requests[0])]
    else:
        outcomes = cpu.run_batch(problems, requests)
    for outcome in outcomes:
        outcome.info |= {"fallback": cpu.name, "reason": reason}
    return outcomes
