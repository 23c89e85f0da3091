"""HiGHS's readers of LP and MPS texts, from SciPy."""

from __future__ import annotations

import numpy as np
from scipy.optimize._highspy import _core


class HighsReader:
    """A file read by HiGHS, with variables in the order of ``labels``, or ``x0 … x(n-1)``.

    HiGHS keeps the lower triangle of a Hessian with a half before it.
    """

    def __init__(self, path, labels=None):
        highs = _core._Highs()
        highs.setOptionValue("output_flag", False)
        assert highs.readModel(str(path)) == _core.HighsStatus.kOk
        self.lp, hessian = highs.getModel().lp_, highs.getModel().hessian_
        names = list(self.lp.col_names_)
        self.n = len(names)
        assert all(kind == _core.HighsVarType.kInteger for kind in self.lp.integrality_)
        assert list(self.lp.col_lower_) == [0] * self.n
        assert list(self.lp.col_upper_) == [1] * self.n
        self.place = [names.index(name) for name in labels or [f"x{i}" for i in range(self.n)]]
        self.half = np.zeros((self.n, self.n))
        for column in range(hessian.dim_):
            for at in range(hessian.start_[column], hessian.start_[column + 1]):
                row = hessian.index_[at]
                self.half[row, column] += hessian.value_[at] / (2 if row == column else 1)
        self.rows = np.zeros((self.lp.num_row_, self.n))
        matrix = self.lp.a_matrix_
        by_column = matrix.format_ == _core.MatrixFormat.kColwise
        for outer in range(len(matrix.start_) - 1):
            for at in range(matrix.start_[outer], matrix.start_[outer + 1]):
                row, column = matrix.index_[at], outer
                if not by_column:
                    row, column = column, row
                self.rows[row, column] = matrix.value_[at]

    def energy(self, states):
        """Return the value of the objective, negated if it is maximised."""
        X = np.empty(states.shape)
        X[:, self.place] = states
        values = self.lp.offset_ + X @ np.array(self.lp.col_cost_).reshape(self.n)
        values += np.einsum("bi,ij,bj->b", X, self.half, X)
        return -values if self.lp.sense_ == _core.ObjSense.kMaximize else values

    def is_feasible(self, states):
        X = np.empty(states.shape)
        X[:, self.place] = states
        sums = X @ self.rows.T
        low, high = np.array(self.lp.row_lower_), np.array(self.lp.row_upper_)
        return ((sums >= low) & (sums <= high)).all(axis=1)
