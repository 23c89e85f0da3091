"""The QUBO with a budget: a weighted sum of the variables that are 1 is at least a value."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from problems import npz
from problems.arrays import Arrays
from problems.budget_constraint import (
    BudgetConstraint,
    check_attainable,
    checked_costs,
    checked_counts,
)
from problems.errors import FormatError, InvalidProblemError
from problems.quadratic import BinaryQuadratic, form_of

if TYPE_CHECKING:  # importing torch takes a second, and problems of arrays don't need it
    from problems.qubo import CardinalityQUBO
    from problems.tensors import Tensors

Array = npt.NDArray[Any]


class BudgetQUBO(BudgetConstraint, BinaryQuadratic):
    """Minimise ``xᵀQx + offset`` over ``x ∈ {0,1}ⁿ`` with ``Σ c_i x_i ≥ B``.

    ``x[i] = 1`` means "group of weights i is pruned", which saves ``c_i`` parameters, operations
    or seconds; ``B`` is the saving that is wanted (a knapsack constraint; for heads and neurons
    with the Fisher information as ``Q``: Kwon et al., NeurIPS 2022, arXiv 2204.09656, equation
    9). Variables may be in disjoint groups with bounds on their number of ones: ``most`` keeps at
    least one head in a layer, ``least = most`` is a cardinality.

    Parameters
    ----------
    Q : array_like or torch.Tensor, shape (n, n)
        Symmetric coefficients, as for :class:`CardinalityQUBO`.
    costs : array_like, shape (n,)
        ``c_i``, at least 0, in any unit.
    budget : float
        ``B``, in the unit of the costs. At 0 or below, it is met by every state.
    groups : array_like of int, shape (n,), optional
        The group of each variable, from 0 on. A single group when omitted.
    least, most : int or sequence of int, optional
        Smallest and largest number of ones in each group; 0 and the number of its variables when
        omitted.
    offset : float, default 0
        Constant added to every energy.
    labels : sequence, optional
        Names of the variables, as for :class:`CardinalityQUBO`.

    Raises
    ------
    InvalidProblemError
        Wrong shape or dtype, non-finite or asymmetric coefficients, negative costs, counts out of
        range, or a budget that exceeds the saving of all variables that ``most`` allows.

    Notes
    -----
    Feasibility is decided in whole numbers (:attr:`whole`): exactly for integer costs, and
    within about 1e-15 n of the sum for real ones.

    Examples
    --------
    >>> p = BudgetQUBO([[1.0, 0.5, 0.0], [0.5, 2.0, 0.0], [0.0, 0.0, 5.0]], [2, 3, 8], budget=5)
    >>> p.is_feasible([[1, 0, 0], [1, 1, 0], [0, 0, 1]]).tolist()
    [False, True, True]
    >>> p.energy([1, 1, 0])
    4.0
    """

    def __init__(
        self,
        Q: Any,
        costs: Any,
        budget: float,
        *,
        groups: Any = None,
        least: Any = None,
        most: Any = None,
        offset: float = 0.0,
        labels: Sequence[Hashable] | None = None,
    ) -> None:
        self._hold_all(form_of(Q), costs, budget, groups, least, most, offset, labels)

    @classmethod
    def from_factors(
        cls,
        A: Any,
        linear: Any,
        costs: Any,
        budget: float,
        *,
        groups: Any = None,
        least: Any = None,
        most: Any = None,
        offset: float = 0.0,
        labels: Sequence[Hashable] | None = None,
    ) -> BudgetQUBO:
        """Build the problem with ``Q = AᵀA + diag(linear)`` without forming ``Q``.

        Parameters
        ----------
        A : array_like or torch.Tensor, shape (m, n)
            Factor of the curvature, one row per sample; m = 0 gives a linear problem.
        linear : array_like or torch.Tensor, shape (n,)
            Linear coefficients besides the diagonal of ``AᵀA``; kept in float64.
        costs, budget, groups, least, most, offset, labels
            As for the class.

        Raises
        ------
        InvalidProblemError
            As for the class, or if ``A`` and ``linear`` have different n.
        """
        self = cls.__new__(cls)
        self._hold_all(form_of(A, linear), costs, budget, groups, least, most, offset, labels)
        return self

    @classmethod
    def from_cardinality(
        cls, problem: CardinalityQUBO, costs: Any = None, budget: float = 0.0
    ) -> BudgetQUBO:
        """Return a problem with the same energies and cardinalities, and a budget besides.

        Parameters
        ----------
        problem : CardinalityQUBO
        costs : array_like, shape (n,), optional
            Costs; 0 when omitted.
        budget : float, default 0
        """
        counts = problem.cardinalities
        constraint: dict[str, Any] = {
            "costs": np.zeros(problem.n) if costs is None else costs,
            "budget": budget,
            "groups": problem.groups,
            "least": counts,
            "most": counts,
            "offset": problem.offset,
            "labels": problem.labels,
        }
        held: Any = problem.held
        if problem.is_factored:
            return cls.from_factors(held.A, held.linear, **constraint)
        return cls(held.Q, **constraint)

    def _hold_all(
        self,
        form: Arrays | Tensors,
        costs: Any,
        budget: Any,
        groups: Any,
        least: Any,
        most: Any,
        offset: float,
        labels: Any,
    ) -> None:
        n = int(form.coefficients.shape[1])
        self.costs, self.budget = checked_costs(n, costs, budget)
        self.groups, self.least, self.most = checked_counts(n, groups, least, most)
        self._hold(form, offset, labels)
        check_attainable(self)

    @property
    def constraint(self) -> dict[str, Any]:
        """Arguments of the class that state the constraint, for a problem like this one."""
        return {
            "costs": self.costs,
            "budget": self.budget,
            "groups": self.groups,
            "least": self.least,
            "most": self.most,
        }

    @property
    def constraint_arrays(self) -> tuple[Array, ...]:
        """Arrays that state the constraint, for :attr:`hash`."""
        return self.groups, self.least, self.most, self.costs, np.array([self.budget])

    def repair(self, states: Any) -> npt.NDArray[np.uint8]:
        """Make states feasible by greedy flips; see :mod:`problems.budget_repair`.

        Parameters
        ----------
        states : array_like of 0/1, shape (n,) or (batch, n)

        Returns
        -------
        ndarray of uint8, of the same shape
            Feasible; rows that were feasible are unchanged.
        """
        from problems.budget_repair import repair

        return repair(self, states)

    # -- files --------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> BudgetQUBO:
        """Read a problem written by :meth:`save` or :meth:`problems.Instance.save`.

        Raises
        ------
        FormatError
            If the file is damaged, has another format, or is not a valid problem.
        FileNotFoundError
            If there is no such file.
        """
        found = npz.read(path)
        if "costs" not in found:
            raise FormatError(
                f"{path} has cardinalities and no budget; read it by CardinalityQUBO.load"
            )
        try:
            if "Q" in found:
                return cls(**found)
            return cls.from_factors(**found)
        except InvalidProblemError as error:
            raise FormatError(f"{path} is not a valid problem: {error}") from error

    def __repr__(self) -> str:
        return self._described(f"budget={self.budget:g}")
