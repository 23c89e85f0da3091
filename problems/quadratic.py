"""The energy ``xᵀQx + offset`` of binary variables, dense or factored; base of problems."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from problems import npz
from problems.arrays import Arrays
from problems.checks import stays_on_device
from problems.errors import InvalidProblemError
from problems.groups import VariableGroups
from problems.labels import checked_labels

if TYPE_CHECKING:  # importing torch takes a second, and problems of arrays don't need it
    import torch

    from problems.tensors import Tensors

Array = npt.NDArray[Any]


class BinaryQuadratic(VariableGroups):
    """The quadratic energy of a problem; subclasses add a constraint.

    Attributes
    ----------
    labels : tuple, or None
        Names of the variables; None if they are numbered.
    offset : float
        Constant added to every energy.
    """

    def _hold(self, form: Arrays | Tensors, offset: float, labels: Any) -> None:
        """Set coefficients, offset and labels of a new problem."""
        self._form = form
        self._copies: dict[torch.device, Tensors] = {}
        self.n = int(form.coefficients.shape[1])
        self.labels = checked_labels(labels, self.n)
        try:
            self.offset = float(offset)
        except (TypeError, ValueError):
            raise InvalidProblemError(f"offset is {offset!r}; it must be a number") from None
        if not np.isfinite(self.offset):
            raise InvalidProblemError(f"offset is {self.offset}; it must be finite")

    @property
    def constraint(self) -> dict[str, Any]:
        """Arguments of the class that state the constraint, for a problem like this one."""
        raise NotImplementedError

    @property
    def constraint_arrays(self) -> tuple[Array, ...]:
        """Arrays that state the constraint, for :attr:`hash`."""
        raise NotImplementedError

    # -- coefficients -------------------------------------------------------------------

    @property
    def is_factored(self) -> bool:
        """Whether the problem is stored as ``A`` and ``linear`` rather than ``Q``."""
        return self._form.Q is None

    @property
    def held(self) -> Arrays | Tensors:
        """The coefficients as stored: on the host, or on the device of the tensors given."""
        return self._form

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of ``Q`` or ``A``: float32 or float64."""
        if isinstance(self._form, Arrays):
            return self._form.coefficients.dtype
        return np.dtype(np.float32 if self._form.coefficients.itemsize == 4 else float)

    @property
    def device(self) -> torch.device:
        """The device of the coefficients: the CPU, or that of the tensors given."""
        import torch

        return torch.device("cpu") if isinstance(self._form, Arrays) else self._form.device

    @property
    def on_host(self) -> bool:
        """Whether the coefficients are on the CPU; unlike :attr:`device`, works without torch."""
        return isinstance(self._form, Arrays) or self._form.device.type == "cpu"

    def tensors(self, device: torch.device | str | None = None) -> Tensors:
        """Return the coefficients as tensors; the copy on a device is cached.

        Parameters
        ----------
        device : torch.device or str, optional
            Device of the tensors; :attr:`device` when omitted.

        Returns
        -------
        Tensors
            ``Q``, or ``A`` and ``linear``, with energies and fields evaluated there. They share
            the problem's memory where possible: do not write to them.
        """
        import torch

        from problems.tensors import Tensors

        wanted = self.device if device is None else torch.device(device)
        if wanted.type == "cuda" and wanted.index is None:
            wanted = torch.device("cuda", torch.cuda.current_device())
        if wanted not in self._copies:
            held = self._form
            source = Tensors.of_arrays(held) if isinstance(held, Arrays) else held
            self._copies[wanted] = source.to(wanted)
        return self._copies[wanted]

    @cached_property
    def _arrays(self) -> Arrays:
        """The coefficients on the host; a copy from a device is cached."""
        return self._form if isinstance(self._form, Arrays) else self._form.arrays()

    @property
    def A(self) -> Array:
        """The factor, shape (m, n).

        Raises
        ------
        InvalidProblemError
            If the problem is dense.
        """
        if self._arrays.A is None:
            raise InvalidProblemError("this problem is dense and has no factor A; use Q")
        return self._arrays.A

    @property
    def linear(self) -> Array:
        """Linear terms besides the diagonal of ``AᵀA``, float64, shape (n,); see :attr:`A`."""
        if self._arrays.linear is None:
            raise InvalidProblemError("this problem is dense; its linear terms are Q's diagonal")
        return self._arrays.linear

    @cached_property
    def Q(self) -> Array:
        """The matrix, shape (n, n); formed and cached on first use if stored as factors.

        The product is always float64: products of float32 factors may overflow float32.
        """
        if self._arrays.Q is not None:
            return self._arrays.Q
        A = self.A.astype(np.float64, copy=False)
        Q: Array = A.T @ A
        Q[np.diag_indices(self.n)] += self.linear
        return Q

    def float64_matrix(self) -> npt.NDArray[np.float64]:
        """Return ``Q`` in float64, C-contiguous, shape (n, n), for proofs that rest on it.

        A factored problem is multiplied out in float64 whatever its dtype, and the product is
        not kept: one formed in float32 would differ from the energies that are reported.
        """
        if not self.is_factored:
            return np.ascontiguousarray(self.Q, dtype=np.float64)
        A = self.A.astype(np.float64, copy=False)
        Q: npt.NDArray[np.float64] = np.ascontiguousarray(A.T @ A)
        Q[np.diag_indices(self.n)] += self.linear
        return Q

    def row(self, i: int) -> npt.NDArray[np.float64]:
        """Return row ``i`` of ``Q`` in float64, shape (n,), without forming ``Q`` from factors."""
        if not self.is_factored or "Q" in vars(self):
            return self.Q[i].astype(np.float64)
        row: npt.NDArray[np.float64] = self.A[:, i].astype(np.float64) @ self.A
        row[i] += self.linear[i]
        return row

    @property
    def peaks(self) -> tuple[float, float]:
        """Largest magnitudes: of ``Q``, or of ``A``, and of ``linear`` (0 where there is none)."""
        return self._form.peaks

    @cached_property
    def diagonal(self) -> Array:
        """Diagonal of ``Q`` in float64, shape (n,)."""
        if isinstance(self._form, Arrays):
            return self._form.diagonal()
        return self._form.diagonal.cpu().numpy()

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of coefficients, constraint and offset, without names."""
        digest = hashlib.sha256()
        held = self._arrays
        for part in (held.Q, held.A, held.linear, *self.constraint_arrays):
            if part is not None:
                digest.update(f"{part.dtype.str}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).data)
        digest.update(np.float64(self.offset).tobytes())
        return digest.hexdigest()

    # -- energies -----------------------------------------------------------------------

    def energy(self, x: Any) -> Any:
        """Energy ``xᵀQx + offset``, evaluated in float64.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,) or (batch, n)
            States; they need not be feasible.

        Returns
        -------
        float or ndarray of float64, shape (batch,)

        Raises
        ------
        InvalidProblemError
            Wrong shape, or an entry that is neither 0 nor 1.
        """
        X = self.as_states(x)
        states = np.atleast_2d(X).astype(np.float64)
        if isinstance(self._form, Arrays):
            energies = self._form.energy(states) + self.offset
        else:
            import torch

            energies = self._form.energy(torch.from_numpy(states)).cpu().numpy() + self.offset
        return float(energies[0]) if X.ndim == 1 else energies

    def fields(self, x: Any) -> Array:
        """Local fields ``f_i = Q_ii + 2 Σ_{j≠i} Q_ij x_j`` in float64.

        Setting ``x_i`` from 0 to 1 changes the energy by ``f_i``; from 1 to 0 by ``-f_i``;
        swapping ``i`` out for ``j`` changes it by ``f_j - f_i - 2 Q_ij``.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,)

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        state = self.as_states(x).astype(np.float64)
        if state.ndim != 1:
            raise InvalidProblemError(f"fields takes one state of shape (n,), got {state.shape}")
        if isinstance(self._form, Arrays):
            return self._form.fields(state[None])[0]
        import torch

        return self._form.fields(torch.from_numpy(state[None]))[0].cpu().numpy()

    def save(self, path: str | Path) -> None:
        """Write the problem to an ``.npz`` file (no pickle); see :mod:`problems.npz`.

        :class:`problems.Instance` adds a start, a solution and notes.
        """
        npz.write(path, npz.fields_of(self))

    def _described(self, constraint: str) -> str:
        """Describe the problem for ``repr``, with its constraint."""
        form = f"rank≤{self._form.A.shape[0]}" if self._form.A is not None else "dense"
        groups = f", groups={self.num_groups}" if self.num_groups > 1 else ""
        return f"{type(self).__name__}(n={self.n}, {constraint}{groups}, {form}, {self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_copies": {}}  # without copies on devices


def form_of(matrix: Any, linear: Any = None) -> Arrays | Tensors:
    """Check a matrix, or a factor with its linear terms, on the device that holds it."""
    if stays_on_device(matrix):
        from problems.tensors import Tensors

        return Tensors.of_matrix(matrix) if linear is None else Tensors.of_factors(matrix, linear)
    return Arrays.of_matrix(matrix) if linear is None else Arrays.of_factors(matrix, linear)
