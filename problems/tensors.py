"""A problem's coefficients as torch tensors, for problems that stay on an accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from problems.arrays import Arrays
from problems.errors import InvalidProblemError

Array = npt.NDArray[Any]

#: Entries converted to float64 at a time when an energy is evaluated (512 MiB).
_CHUNK = 1 << 26

#: Largest asymmetry that counts as rounding; see :mod:`problems.checks`.
_ASYMMETRY = {torch.float32: 1e-5, torch.float64: 1e-11}


@dataclass(frozen=True)
class Tensors:
    """Either ``Q``, or ``A`` and ``linear``, on one device; see :class:`problems.CardinalityQUBO`.

    Energies and fields are evaluated in float64 on that device, without the offset.
    """

    Q: Tensor | None
    """Shape (n, n), float32 or float64."""
    A: Tensor | None
    """Shape (m, n), float32 or float64."""
    linear: Tensor | None
    """Shape (n,), float64."""

    @classmethod
    def of_matrix(cls, values: Tensor) -> Tensors:
        """Check a matrix on its device; raises the errors of :class:`CardinalityQUBO`."""
        Q = _checked(values, "Q", ndim=2)
        if Q.shape[0] != Q.shape[1]:
            raise InvalidProblemError(f"Q has shape {tuple(Q.shape)}; it must be square, (n, n)")
        if torch.equal(Q, Q.T):
            return cls(Q, None, None)
        scale, worst = float(Q.abs().max()), float((Q - Q.T).abs().max())
        if worst > _ASYMMETRY[Q.dtype] * scale:
            raise InvalidProblemError(
                f"Q is not symmetric (max |Q - Qᵀ| = {worst:.3g}, max |Q| = {scale:.3g}); "
                "pass (Q + Q.T) / 2 for the same energies"
            )
        half = Q / 2  # halved first: the sum of two large entries may overflow
        return cls(half + half.T, None, None)

    @classmethod
    def of_factors(cls, A: Tensor, linear: Any) -> Tensors:
        """Check factors on the device of ``A``, and move ``linear`` there."""
        factor = _checked(A, "A", ndim=2)
        vector = _checked(torch.as_tensor(linear).to(A.device), "linear", ndim=1).double()
        if factor.shape[1] != vector.shape[0]:
            raise InvalidProblemError(
                f"A has {factor.shape[1]} columns but linear has {vector.shape[0]} entries; "
                "both must be n"
            )
        return cls(None, factor, vector)

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Tensors:
        """Wrap arrays, sharing their memory where torch can."""
        parts = (arrays.Q, arrays.A, arrays.linear)
        return cls(*(None if part is None else _shared(part) for part in parts))

    def arrays(self) -> Arrays:
        """Copy to arrays on the host."""
        parts = (self.Q, self.A, self.linear)
        return Arrays(*(None if part is None else part.cpu().numpy() for part in parts))

    @property
    def coefficients(self) -> Tensor:
        """``Q``, or ``A`` of a factored problem."""
        held = self.A if self.Q is None else self.Q
        assert held is not None
        return held

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.coefficients.device

    def to(self, device: torch.device) -> Tensors:
        """Copy to another device; returns ``self`` if it is there already."""
        if device == self.device:
            return self

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return Tensors(move(self.Q), move(self.A), move(self.linear))

    @cached_property
    def peaks(self) -> tuple[float, float]:
        """Largest magnitudes: of ``Q``, or of ``A``, and of ``linear`` (0 where there is none)."""
        return _peak(self.coefficients), 0.0 if self.linear is None else _peak(self.linear)

    @cached_property
    def diagonal(self) -> Tensor:
        """Diagonal of the matrix in float64, shape (n,)."""
        if self.Q is not None:
            return self.Q.diagonal().double()
        assert self.A is not None
        assert self.linear is not None
        total = self.linear.clone()
        step = max(1, _CHUNK // max(self.A.shape[1], 1))
        for rows in self.A.split(step):
            total += rows.double().square().sum(dim=0)
        return total

    def energy(self, X: Tensor) -> Tensor:
        """Energies ``xᵀQx`` in float64, shape (batch,), of states (batch, n)."""
        states = X.to(self.device, torch.float64)
        if self.Q is not None:
            return (states * _times(states, self.Q)).sum(dim=1)
        assert self.A is not None
        assert self.linear is not None
        projected = _times(states, self.A.T)
        return projected.square().sum(dim=1) + states @ self.linear

    def fields(self, X: Tensor) -> Tensor:
        """Local fields in float64, shape (batch, n), of states (batch, n)."""
        states = X.to(self.device, torch.float64)
        if self.Q is not None:
            return self.diagonal * (1 - 2 * states) + 2 * _times(states, self.Q)
        assert self.A is not None
        assert self.linear is not None
        squares = self.diagonal - self.linear
        coupled = 2 * _times(_times(states, self.A.T), self.A)
        return self.linear + squares * (1 - 2 * states) + coupled


def _checked(values: Tensor, name: str, ndim: int) -> Tensor:
    tensor = values.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    elif not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool:
        tensor = tensor.double()
    if tensor.dtype not in _ASYMMETRY:
        raise InvalidProblemError(
            f"{name} has dtype {tensor.dtype}; use float32, float64 or an integer type"
        )
    if tensor.ndim != ndim:
        raise InvalidProblemError(f"{name} has {tensor.ndim} dimensions, expected {ndim}")
    if not torch.isfinite(tensor).all():
        where = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
        found = float(tensor[tuple(where)])
        raise InvalidProblemError(f"{name}{where} is {found}; it must be finite")
    return tensor


def _peak(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, float("inf"))) if values.numel() else 0.0


def _shared(array: Array) -> Tensor:
    """Share an array's memory with torch, or copy it if torch can't use it in place."""
    plain = array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if plain else array.astype(array.dtype.newbyteorder("=")))


def _times(X: Tensor, matrix: Tensor) -> Tensor:
    """``X @ matrix`` in float64, converting ``matrix`` piece by piece to bound memory."""
    rows, columns = matrix.shape
    if matrix.dtype == torch.float64 or rows * columns <= _CHUNK:
        return X @ matrix.double()
    step = max(1, _CHUNK // rows)
    return torch.cat([X @ piece.double() for piece in matrix.split(step, dim=1)], dim=1)
