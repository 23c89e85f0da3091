"""Grouping of problems into launches by padded size and available memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from problems import CardinalityQUBO
from solvers.base import Request
from solvers.gpu.batch import Batch, TabuParameters, padded
from solvers.gpu.layout import SlotLayout, form_matrix, random_states, table
from solvers.streams import read_words

#: Largest number of variables whose state fits the registers of one program.
MAX_SLOTS = 1 << 14
#: Share of the device's free memory that one launch may use.
_SHARE = 0.7


@dataclass
class SearchResult:
    """Results for one problem, on the device."""

    states: Tensor
    """uint8, shape (reads, n), in the problem's own order of variables."""
    swaps: int
    """Swaps made, over all reads."""
    build_seconds: float
    """Share of the time to set up the launch."""


def search(
    problems: Sequence[CardinalityQUBO],
    requests: Sequence[Request],
    parameters_for: Callable[[int], TabuParameters],
    device: torch.device,
) -> list[SearchResult]:
    """Search all problems, with one program per read, in as few launches as possible.

    Parameters
    ----------
    problems : sequence of CardinalityQUBO
        Of at most :data:`MAX_SLOTS` variables.
    requests : sequence of Request
        Reads, seeds, initial states and time limits; a time limit counts from the start of the
        problem's launch.
    parameters_for : callable
        Returns the parameters of the search for a number of slots N.
    device : torch.device

    Returns
    -------
    list of SearchResult
        In the order of ``problems``.
    """
    found: dict[int, SearchResult] = {}
    buckets = defaultdict(list)
    for i, (problem, request) in enumerate(zip(problems, requests, strict=True)):
        grouped = problem.num_groups > 1
        buckets[padded(problem.n), problem.dtype.str, grouped, request.time_limit].append(i)
    for (slots, _, grouped, limit), members in buckets.items():
        costs = [_bytes(problems[i], requests[i].num_reads, slots, device) for i in members]
        for start, stop in _pieces(costs, _budget(device)):
            chosen = members[start:stop]
            answers = _launch(
                [problems[i] for i in chosen], [requests[i] for i in chosen],
                slots, grouped, limit, parameters_for(slots), device,
            )  # fmt: skip
            found.update(zip(chosen, answers, strict=True))
    return [found[i] for i in range(len(problems))]


def _launch(
    problems: Sequence[CardinalityQUBO],
    requests: Sequence[Request],
    slots: int,
    grouped: bool,
    limit: float | None,
    parameters: TabuParameters,
    device: torch.device,
) -> list[SearchResult]:
    begin = time.perf_counter()
    layouts = [SlotLayout.of(problem) for problem in problems]
    matrices = [
        # Not tensors(device): the problem would cache that copy.
        form_matrix(problem.tensors().to(device), layout)
        for problem, layout in zip(problems, layouts, strict=True)
    ]
    reads = [request.num_reads for request in requests]
    owner = torch.from_numpy(np.repeat(np.arange(len(problems)), reads)).to(device)
    seeds = program_seeds(requests, device)
    x = random_states(layouts, owner, seeds, slots)
    first = np.cumsum(reads) - reads
    given = [i for i, request in enumerate(requests) if request.initial_state is not None]
    if given:
        starts = [_arranged(requests[i], layouts[i]) for i in given]
        x[torch.as_tensor(first[given], device=device)] = table(starts, slots, 0, device)
    groups = None
    if grouped:
        groups = table([layout.group for layout in layouts], slots, -1, device)[owner]
    batch = Batch([matrices[i] for i in owner.tolist()], x, seeds, groups)
    batch.synchronize()
    build = time.perf_counter() - begin
    batch.search(parameters, None if limit is None else limit - build)
    batch.polish()
    states, swaps = batch.states, batch.swaps.cpu().numpy()
    share = build / len(problems)
    return [
        SearchResult(
            layout.restore(states[a : a + r, : layout.n]), int(swaps[a : a + r].sum()), share
        )
        for layout, a, r in zip(layouts, first, reads, strict=True)
    ]


def program_seeds(requests: Sequence[Request], device: torch.device) -> Tensor:
    """Return a seed for every read of every request: int32, shape (P,)."""
    words = [read_words(request.seed, request.num_reads) for request in requests]
    return torch.from_numpy(np.concatenate(words).view(np.int32)).to(device)


def _arranged(request: Request, layout: SlotLayout) -> npt.NDArray[np.uint8]:
    state = request.initial_state
    assert state is not None
    return state if layout.order is None else state[layout.order]


def _bytes(problem: CardinalityQUBO, reads: int, slots: int, device: torch.device) -> int:
    """Estimate the additional memory of a problem on the device."""
    word = problem.dtype.itemsize
    formed = problem.is_factored or problem.num_groups > 1 or problem.device != device
    return formed * 2 * word * problem.n**2 + reads * slots * (2 * word + 64)


def _budget(device: torch.device) -> float:
    if device.type != "cuda":
        return float("inf")
    pooled = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _SHARE * (torch.cuda.mem_get_info(device)[0] + pooled)


def _pieces(costs: Sequence[int], budget: float) -> Iterator[tuple[int, int]]:
    """Divide a sequence into runs that fit the budget, with at least one item each."""
    start, total = 0, 0.0
    for i, cost in enumerate(costs):
        if i > start and total + cost > budget:
            yield start, i
            start, total = i, 0.0
        total += cost
    yield start, len(costs)
