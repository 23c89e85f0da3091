"""Layout of a problem's variables in a program's slots, and initial states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from problems import CardinalityQUBO
from problems.tensors import Tensors

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SlotLayout:
    """Variables sorted by group, as the kernels' scans over groups require."""

    n: int
    order: Array | None
    """Variable of each slot, shape (n,); None if the variables are sorted already."""
    group: Array
    """Group of each slot, int32, shape (n,)."""
    first: Array
    """First slot of each slot's group, shape (n,)."""
    cardinality: Array
    """Cardinality of each slot's group, shape (n,)."""

    @classmethod
    def of(cls, problem: CardinalityQUBO) -> SlotLayout:
        """Lay out the variables of a problem."""
        order = None
        group = problem.groups
        if (group[1:] < group[:-1]).any():
            order = np.argsort(group, kind="stable")
            group = group[order]
        first = np.searchsorted(group, np.arange(problem.num_groups))[group]
        return cls(problem.n, order, group, first, problem.cardinalities[group])

    def arrange(self, states: Tensor) -> Tensor:
        """Reorder the last axis from variables to slots."""
        return states if self.order is None else states[..., self._index(states)]

    def restore(self, states: Tensor) -> Tensor:
        """Undo :meth:`arrange`."""
        if self.order is None:
            return states
        restored = torch.empty_like(states)
        restored[..., self._index(states)] = states
        return restored

    def _index(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.order, device=like.device)


def table(rows: Sequence[Array], slots: int, fill: int, device: torch.device) -> Tensor:
    """Pad rows of integers to one int32 tensor, shape (len(rows), slots)."""
    padded = np.full((len(rows), slots), fill, np.int32)
    for out, row in zip(padded, rows, strict=True):
        out[: len(row)] = row
    return torch.from_numpy(padded).to(device)


def random_states(
    layouts: Sequence[SlotLayout], owner: Tensor, seeds: Tensor, slots: int
) -> Tensor:
    """Draw a feasible state for each program, uniformly.

    Parameters
    ----------
    layouts : sequence of SlotLayout
    owner : Tensor of int64, shape (P,)
        The layout of each program.
    seeds : Tensor of int32, shape (P,)
    slots : int
        Number of slots N.

    Returns
    -------
    Tensor of int32, shape (P, N)
    """
    device = seeds.device
    group = table([layout.group for layout in layouts], slots, np.iinfo(np.int32).max, device)
    first = table([layout.first for layout in layouts], slots, 0, device)
    cardinality = table([layout.cardinality for layout in layouts], slots, 0, device)
    key = _hash(seeds, slots) + (group[owner].long() << 32)
    # Sorted by group and, within it, at random: the first k of each group are 1.
    rank = key.argsort(dim=1, stable=True).argsort(dim=1) - first[owner]
    return (rank < cardinality[owner]).int()


def _hash(seeds: Tensor, count: int) -> Tensor:
    """Hash (seed, 0 … count - 1) to 32 bits each, as int64 of shape (P, count)."""
    mask = 0xFFFFFFFF
    z = seeds.long()[:, None] * 0x9E3779B9 + torch.arange(count, device=seeds.device)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        z &= mask
        z = (z ^ (z >> shift)) * factor
    return z & mask


def form_matrix(coefficients: Tensors, layout: SlotLayout) -> Tensor:
    """Return ``Q`` in the order of slots, multiplied out if given as factors."""
    if coefficients.Q is not None:
        Q = coefficients.Q
        if layout.order is not None:
            index = torch.as_tensor(layout.order, device=Q.device)
            Q = Q[index][:, index]
        return Q.contiguous()
    assert coefficients.A is not None
    assert coefficients.linear is not None
    Q = _gram(layout.arrange(coefficients.A))
    Q.diagonal().add_(layout.arrange(coefficients.linear).to(Q.dtype))
    return Q


def set_matrix(coefficients: Tensors, index: Tensor) -> Tensor:
    """Return the couplings ``Q_CC`` of some variables; without linear terms for factors."""
    if coefficients.Q is not None:
        return coefficients.Q[index][:, index].contiguous()
    assert coefficients.A is not None
    return _gram(coefficients.A[:, index])


def _gram(A: Tensor) -> Tensor:
    """``AᵀA`` in full float32 precision, since TF32 would leave three digits of the fields."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return A.T @ A
    finally:
        torch.set_float32_matmul_precision(precision)
