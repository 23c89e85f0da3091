"""The cardinality-constrained QUBO, dense or factored."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from problems import npz
from problems.arrays import Arrays
from problems.checks import checked_cardinalities
from problems.errors import FormatError, InvalidProblemError
from problems.groups import CardinalityGroups
from problems.quadratic import BinaryQuadratic, form_of

if TYPE_CHECKING:  # importing torch takes a second, and problems of arrays don't need it
    from problems.tensors import Tensors

Array = npt.NDArray[Any]


class CardinalityQUBO(CardinalityGroups, BinaryQuadratic):
    """Minimise ``xᵀQx + offset`` over ``x ∈ {0,1}ⁿ`` with ``Σx = k``.

    ``x[i] = 1`` means "weight i is pruned" (iCBS, arXiv 2411.17796, section 3). ``Q`` is
    symmetric, both triangles count, and the linear terms lie on its diagonal. Blocks that come
    from per-sample gradients have a curvature of low rank, and are best given as factors
    (:meth:`from_factors`), without forming ``Q``.

    Parameters
    ----------
    Q : array_like or torch.Tensor, shape (n, n)
        Symmetric coefficients; float32 and float64 are kept, integers become float64, half
        precision becomes float32. The array is not copied unless necessary. A CUDA tensor stays
        on its device: energies are evaluated there, and it is copied to the host only when an
        array is needed (:attr:`Q`, a file, a CPU solver).
    k : int or sequence of int
        Number of variables that are 1; one for each group when ``groups`` is given.
    groups : array_like of int, shape (n,), optional
        The group of each variable, ``0 … len(k) - 1``; each group holds its own ``k``
        (one group per output row, or per N:M run). A single group when omitted.
    offset : float, default 0
        Constant added to every energy.
    labels : sequence, optional
        Names of the variables (strings, numbers, or tuples of them), all distinct; numbered
        when omitted. Files keep them; they affect neither energies nor :attr:`hash`.

    Raises
    ------
    InvalidProblemError
        Wrong shape or dtype, non-finite or asymmetric coefficients, ``k`` out of range.

    Examples
    --------
    >>> p = CardinalityQUBO([[1.0, -2.0], [-2.0, 3.0]], k=1)
    >>> p.energy([1, 0])
    1.0
    """

    def __init__(
        self,
        Q: Any,
        k: int | Sequence[int] | Array,
        *,
        groups: Any = None,
        offset: float = 0.0,
        labels: Sequence[Hashable] | None = None,
    ) -> None:
        self._hold_all(form_of(Q), k, groups, offset, labels)

    @classmethod
    def from_factors(
        cls,
        A: Any,
        linear: Any,
        k: int | Sequence[int] | Array,
        *,
        groups: Any = None,
        offset: float = 0.0,
        labels: Sequence[Hashable] | None = None,
    ) -> CardinalityQUBO:
        """Build the problem with ``Q = AᵀA + diag(linear)`` without forming ``Q``.

        Parameters
        ----------
        A : array_like or torch.Tensor, shape (m, n)
            Factor of the curvature, one row per sample; m = 0 gives a linear problem. A CUDA
            tensor stays on its device, as for the class.
        linear : array_like or torch.Tensor, shape (n,)
            Linear coefficients besides the diagonal of ``AᵀA``; kept in float64.
        k, groups, offset, labels
            As for the class.

        Raises
        ------
        InvalidProblemError
            As for the class, or if ``A`` and ``linear`` have different n.
        """
        self = cls.__new__(cls)
        self._hold_all(form_of(A, linear), k, groups, offset, labels)
        return self

    def _hold_all(
        self, form: Arrays | Tensors, k: Any, groups: Any, offset: float, labels: Any
    ) -> None:
        self.groups, self.cardinalities = checked_cardinalities(
            int(form.coefficients.shape[1]), k, groups
        )
        self._hold(form, offset, labels)

    @property
    def constraint(self) -> dict[str, Any]:
        """Arguments of the class that state the constraint, for a problem like this one."""
        return {"k": self.cardinalities, "groups": self.groups}

    @property
    def constraint_arrays(self) -> tuple[Array, ...]:
        """Arrays that state the constraint, for :attr:`hash`."""
        return self.groups, self.cardinalities

    # -- files --------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> CardinalityQUBO:
        """Read a problem written by :meth:`save` or :meth:`problems.Instance.save`.

        Raises
        ------
        FormatError
            If the file is damaged, has another format, or is not a valid problem.
        FileNotFoundError
            If there is no such file.
        """
        found = npz.read(path)
        if "costs" in found:
            raise FormatError(
                f"{path} has a budget and no cardinality; read it by BudgetQUBO.load or "
                "problems.formats.read"
            )
        rest = {name: found[name] for name in ("groups", "offset", "labels")}
        try:
            if "Q" in found:
                return cls(found["Q"], found["k"], **rest)
            return cls.from_factors(found["A"], found["linear"], found["k"], **rest)
        except InvalidProblemError as error:
            raise FormatError(f"{path} is not a valid problem: {error}") from error

    def __repr__(self) -> str:
        return self._described(f"k={self.k}")
