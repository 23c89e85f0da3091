"""Disjoint groups of binary variables, and a fixed number of ones in each."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.checks import as_array
from problems.errors import InvalidProblemError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
State = npt.NDArray[np.uint8]


class VariableGroups:
    """Binary variables in disjoint groups; base of the constraints of problems.

    Attributes
    ----------
    n : int
        Number of variables.
    groups : ndarray of int32, shape (n,)
        Group of each variable, ``0 … num_groups - 1``; a group may be empty.
    """

    n: int
    groups: Array

    @property
    def num_groups(self) -> int:
        """Number of disjoint groups."""
        raise NotImplementedError

    @cached_property
    def group_sizes(self) -> npt.NDArray[np.int64]:
        """Number of variables of each group, shape (num_groups,); read-only."""
        sizes = np.bincount(self.groups, minlength=self.num_groups).astype(np.int64, copy=False)
        sizes.flags.writeable = False
        return sizes

    @cached_property
    def group_members(self) -> tuple[npt.NDArray[np.intp], ...]:
        """Indices of the variables of each group, ascending; read-only."""
        order = np.argsort(self.groups, kind="stable")
        members = tuple(np.split(order, np.cumsum(self.group_sizes)[:-1]))
        for part in members:  # NumPy's permutation refuses read-only arrays that are empty
            part.flags.writeable = len(part) == 0
        return members

    def count(self, X: Array) -> Array:
        """Count the ones per group, shape (batch, num_groups), of states (batch, n)."""
        if self.num_groups == 1:
            return X.sum(axis=1, dtype=np.int64)[:, None]
        counts = np.zeros((len(X), self.num_groups), dtype=np.int64)
        for row, state in zip(counts, X, strict=True):
            row += np.bincount(self.groups[state != 0], minlength=self.num_groups)
        return counts

    def as_states(self, x: Any) -> State:
        """Check states and return them as uint8, shape (n,) or (batch, n).

        Raises
        ------
        InvalidProblemError
            Wrong shape, or an entry that is neither 0 nor 1.
        """
        X = as_array(x, "state")
        if X.ndim not in (1, 2) or X.shape[-1] != self.n:
            raise InvalidProblemError(
                f"state has shape {X.shape}; this problem takes ({self.n},) or (batch, {self.n})"
            )
        if X.dtype.kind not in "biuf" or not ((X == 0) | (X == 1)).all():
            raise InvalidProblemError("a state may hold 0 and 1 only")
        return X.astype(np.uint8)

    def is_feasible(self, x: Any) -> Any:
        """Whether each state satisfies the constraint.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,) or (batch, n)

        Returns
        -------
        bool or ndarray of bool, shape (batch,)
        """
        X = self.as_states(x)
        feasible = self._feasible(np.atleast_2d(X))
        return bool(feasible[0]) if X.ndim == 1 else feasible

    def _feasible(self, X: State) -> Mask:
        """Whether each state of a batch, shape (batch, n), satisfies the constraint."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        # Derived arrays are computed again: pickling would make them writable.
        derived = ("group_sizes", "group_members")
        return {name: value for name, value in self.__dict__.items() if name not in derived}


class CardinalityGroups(VariableGroups):
    """The constraint ``Σ_{i∈g} x_i = k_g`` of every group ``g``; base of :class:`CardinalityQUBO`.

    Attributes
    ----------
    n : int
        Number of variables.
    groups : ndarray of int32, shape (n,)
        Group of each variable, ``0 … num_groups - 1``; a group may be empty.
    cardinalities : ndarray of int64, shape (num_groups,)
        ``k_g``.
    """

    n: int
    groups: Array
    cardinalities: Array

    @property
    def k(self) -> int:
        """Total number of variables that are 1, over all groups."""
        return int(self.cardinalities.sum())

    @property
    def num_groups(self) -> int:
        """Number of disjoint groups with a cardinality of their own."""
        return len(self.cardinalities)

    def forced_variables(self) -> tuple[Mask, Mask]:
        """Return masks of the variables that are 0, and that are 1, in every feasible state.

        They are those of the groups with ``k_g = 0``, and with ``k_g`` variables.
        """
        none, all_ = self.cardinalities == 0, self.cardinalities == self.group_sizes
        return none[self.groups], all_[self.groups]

    def minimise_linear(self, cost: Array, *ties: Array) -> State:
        """Return the feasible state with the least sum of the costs of its ones.

        Sets the ``k_g`` variables of smallest cost in each group.

        Parameters
        ----------
        cost : ndarray, shape (n,)
        *ties : ndarray, shape (n,)
            Further costs, which decide between variables of equal cost; in the end the lower
            index does.

        Returns
        -------
        ndarray of uint8, shape (n,)
        """
        order = np.lexsort((*reversed(ties), cost, self.groups))
        sizes = self.group_sizes
        rank = np.arange(self.n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        x = np.zeros(self.n, dtype=np.uint8)
        x[order] = rank < self.cardinalities[self.groups[order]]
        return x

    def _feasible(self, X: State) -> Mask:
        return np.asarray((self.count(X) == self.cardinalities).all(axis=1))
