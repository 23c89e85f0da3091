"""Search of problems too large for one program, in working sets.

With all other variables fixed, a set C of variables is a problem of its own, with the couplings
``Q_CC`` and the initial fields of the whole problem. Each round computes the fields of all
variables from the factors (two passes over A, at memory bandwidth), chooses the most promising
variables for every read, forms their small ``Q_CC``, and searches all reads in one launch. A
round without success doubles the pool that sets are drawn from.
"""

from __future__ import annotations

import dataclasses
import time

import torch
from torch import Tensor

from problems import CardinalityQUBO
from problems.tensors import Tensors
from solvers.base import Request
from solvers.gpu.batch import Batch, TabuParameters, padded
from solvers.gpu.layout import SlotLayout, random_states, set_matrix
from solvers.gpu.search import SearchResult, program_seeds

#: Variables of a working set; its matrix (16 MiB) fits the device's cache.
WIDTH = 2048
#: Rounds without gain after which a search without a time limit ends; the pool then has the size
#: of 2**_QUIET sets.
_QUIET = 4
#: Longest patience of a round; a new working set gains more.
_PATIENCE = 500


def search_large(
    problem: CardinalityQUBO,
    request: Request,
    parameters: TabuParameters,
    device: torch.device,
    width: int = WIDTH,
) -> SearchResult:
    """Search a problem of any size.

    Parameters
    ----------
    problem : CardinalityQUBO
    request : Request
    parameters : TabuParameters
    device : torch.device
    width : int
        Variables of a working set.

    Returns
    -------
    SearchResult
    """
    begin = time.perf_counter()
    coefficients = problem.tensors().to(device)
    groups = torch.from_numpy(problem.groups).to(device).long()
    seeds = program_seeds([request], device)
    grouped = groups if problem.num_groups > 1 else None
    layout = SlotLayout.of(problem)
    owner = torch.zeros(request.num_reads, dtype=torch.int64, device=device)
    X = layout.restore(random_states([layout], owner, seeds, problem.n))
    if request.initial_state is not None:
        X[0] = torch.tensor(request.initial_state, device=device)
    random = torch.Generator(device).manual_seed(int(seeds[0]) & 0xFFFFFFFF)
    build = time.perf_counter() - begin

    parameters = dataclasses.replace(parameters, patience=min(parameters.patience, _PATIENCE))
    swaps = quiet = 0
    limited = request.time_limit is not None
    while limited or quiet <= _QUIET:
        fields = coefficients.fields(X)
        chosen = _working_set(fields, X, groups, width, quiet, random)
        batch = _batch(coefficients, fields, X, chosen, seeds, grouped)
        batch.search(parameters)
        X.scatter_(1, chosen, batch.states[:, : chosen.shape[1]].int())
        swaps += int(batch.swaps.sum())
        seeds = seeds + 1
        quiet = 0 if bool((batch.gains < 0).any()) else quiet + 1
        if limited and request.remaining <= 0:
            break
    return SearchResult(X.to(torch.uint8), swaps, build)


def _working_set(
    fields: Tensor, X: Tensor, groups: Tensor, width: int, quiet: int, random: torch.Generator
) -> Tensor:
    """Choose the most promising variables of either side, sorted by group: int64, (reads, c).

    The score of a variable is the change of energy, without couplings, by its best swap.
    """
    reads, n = X.shape
    label = groups.expand(reads, n)
    count = int(groups.max()) + 1
    none = float("inf")
    ones = X == 1
    least = fields.new_full((reads, count), none)
    least.scatter_reduce_(1, label, fields.masked_fill(ones, none), "amin")
    most = fields.new_full((reads, count), -none)
    most.scatter_reduce_(1, label, fields.masked_fill(~ones, -none), "amax")
    sides = []
    for side, promise in ((ones, least.gather(1, label) - fields),
                          (~ones, fields - most.gather(1, label))):  # fmt: skip
        present = int(side.sum(dim=1).min())
        pool = min(width // 2 << quiet, present)
        best = promise.masked_fill(~side, none).topk(pool, dim=1, largest=False).indices
        shuffled = torch.rand(best.shape, generator=random, device=best.device).argsort(dim=1)
        sides.append(best.gather(1, shuffled[:, : min(width // 2, pool)]))
    chosen = torch.cat(sides, dim=1).sort(dim=1).values
    return chosen.gather(1, groups[chosen].argsort(dim=1, stable=True))


def _batch(
    coefficients: Tensors,
    fields: Tensor,
    X: Tensor,
    chosen: Tensor,
    seeds: Tensor,
    groups: Tensor | None,
) -> Batch:
    """Lay out the working sets of all reads as one batch."""
    fields, x = fields.gather(1, chosen), X.gather(1, chosen)
    reads, c = chosen.shape
    matrices = []
    for index, state, field in zip(chosen, x.double(), fields, strict=True):
        Q = set_matrix(coefficients, index)
        # The diagonal that gives each variable its field in the whole problem.
        inner = (Q.double() @ state) - Q.diagonal().double() * state
        Q.diagonal().copy_(field - 2 * inner)
        matrices.append(Q)
    slots = padded(c)
    wide = torch.zeros(reads, slots, dtype=torch.int32, device=x.device)
    wide[:, :c] = x
    labels = None
    if groups is not None:
        labels = torch.full_like(wide, -1)
        labels[:, :c] = groups[chosen].int()
    return Batch(matrices, wide, seeds, labels)
