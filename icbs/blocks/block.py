"""The block problem: quadratic models of a set of gates as a cardinality-constrained QUBO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.curvature.source import QuadraticModel
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from problems import BudgetQUBO, CardinalityQUBO
from problems.read_only import read_only

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """Change ``-s·u + ½ uᵀCu`` for a move u of the gates."""

    slope: Float
    """s, shape (n,)."""
    matrix: Float
    """C, shape (n, n)."""

    def change(self, u: Float) -> float:
        """Evaluate the change."""
        moved = np.flatnonzero(u)
        part = u[moved]
        curvature = 0.5 * part @ self.matrix[np.ix_(moved, moved)] @ part
        return float(-self.slope[moved] @ part + curvature)


@dataclass
class Block:
    """Gates that may exchange their places in the mask, and the problem that decides it."""

    gates: Gates
    start: npt.NDArray[np.uint8]
    """Current state, 1 = pruned, shape (n,), read-only; its energy is 0."""
    problem: CardinalityQUBO | BudgetQUBO
    penalty: Float
    """Ridge λω, shape (n,): part of the energy, but not of the predicted change."""
    others: Sequence[Quadratic] = ()
    """Terms of the energy that do not model the loss, such as a layer's output error."""
    kappa: float = 1.0
    """κ, the weight of the curvature of the loss, including damping."""

    def __post_init__(self) -> None:
        # Copies that solvers have no access to, so that the density check is independent of them.
        self.start = read_only(self.start.copy())
        self._groups = self.problem.groups.copy()
        self._counts = self._count(self.start)

    @property
    def layer(self) -> Layer:
        """Layer of the gates; the first where there are several."""
        return self.gates.parts[0].layer

    @property
    def index(self) -> Tensor:
        """Flat indices of the weights of the first layer, shape (n,) for gates of one weight."""
        return self.gates.parts[0].index

    @property
    def name(self) -> str:
        """Names of the layers."""
        return self.gates.name

    def masks(self, x: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
        """Return the masks of the layers after a move to a state; the layers are not changed.

        Parameters
        ----------
        x : array of uint8, shape (n,)
            State, 1 = pruned.

        Returns
        -------
        dict of str to Tensor of bool
            Layer name → mask, True where the weight is kept, in the shape of the weight.
        """
        moved = np.flatnonzero(x != self.start)
        pruned = {layer.name: layer.pruned.clone() for layer in self.gates.layers}
        for change in self.gates.changes(moved, x.astype(bool)[moved]):
            pruned[change.layer.name][change.index] = change.pruned
        return {
            layer.name: layer.kind.shaped(~pruned[layer.name].view(layer.shape)).contiguous()
            for layer in self.gates.layers
        }

    def keeps_counts(self, x: npt.NDArray[np.uint8]) -> bool:
        """Whether a state has as many pruned gates of each group as now, or is in the budget."""
        if self.gates.limits is not None:
            return self.gates.limits.allows(x)
        binary = x.shape == self.start.shape and bool(((x == 0) | (x == 1)).all())
        return binary and np.array_equal(self._count(x), self._counts)

    @property
    def pruned(self) -> int:
        """Number of pruned gates in the current state."""
        return int(self.start.sum())

    def within_budget(
        self, x: npt.NDArray[np.uint8], energy: float
    ) -> tuple[npt.NDArray[np.uint8], float]:
        """Return a state whose true cost is within the budget, and its energy.

        A block without a budget returns the state given.
        """
        limits, problem = self.gates.limits, self.problem
        if limits is None or not isinstance(problem, BudgetQUBO) or limits.holds(x):
            return x, energy
        found = limits.repaired(x, problem)
        return found, float(problem.energy(found))

    def filled(self, x: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a state with the gates that still fit into the budget opened.

        A block without a budget returns the state given.
        """
        limits, problem = self.gates.limits, self.problem
        if limits is None or not isinstance(problem, BudgetQUBO):
            return x
        return limits.filled(x, problem)

    def _count(self, x: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        return np.bincount(self._groups[x != 0], minlength=self.problem.num_groups)

    def predicted(self, x: npt.NDArray[np.uint8], energy: float) -> float:
        """Change of the loss that the quadratic model predicts for a move to ``x``.

        If no term models the loss, the change of the quantity that is modelled.
        """
        change = energy - float(self.penalty @ (x != self.start))
        if self.others:
            u = x.astype(np.float64) - self.start
            change -= sum(other.change(u) for other in self.others)
        return change


def build_block(
    gates: Gates,
    models: Sequence[QuadraticModel],
    *,
    gamma: float = 1.0,
    kappa: float = 1.0,
    ridge: float = 0.0,
    coupling: float = 1.0,
    ones: npt.NDArray[np.int64] | None = None,
) -> Block:
    """Sum quadratic models of gates into a cardinality-constrained QUBO.

    With the gate gradients ā, κ times their curvature as C, the move ``u = x - x⁰`` and
    ω = w⁰², the model is ``ΔL = -γ ā·u + ½ uᵀCu + λ ω·u²`` (iCBS, arXiv 2411.17796,
    section 3; pruning takes a gate from 1 to 0, hence the minus). Expanded in x:

    - ``Q = ½C + diag(-γā - Cx⁰ + λω(1 - 2x⁰))``
    - ``offset = γ ā·x⁰ + ½ x⁰ᵀCx⁰ + λ ω·x⁰``

    so that the current state has energy 0. Sums are taken in float64.

    γ and κ correct for the approximations of a model of the loss. Other models, such as the
    error of a layer's output (exactly quadratic), are added without them.

    Parameters
    ----------
    gates : Gates
    models : sequence of QuadraticModel
        At the current weights.
    gamma : float, default 1
        γ, weight of the slope of the loss.
    kappa : float, default 1
        κ, weight of the curvature of the loss; see ``PrunerConfig.curvature_weight``.
    ridge : float, default 0
        λ.
    coupling : float, default 1
        Factor on the off-diagonal terms of the curvature of the loss; its diagonal is unchanged.
    ones : array of int, optional
        Number of pruned gates of each group; by default that of the current state.
    """
    weights = [part.weights.double() for part in gates.parts]
    start = gates.closed()
    penalty = ridge * gates.total([w**2 for w in weights])
    slope, matrix, others = np.zeros(len(gates)), np.zeros((0, 0)), []
    factors = []
    diagonal = np.zeros(len(gates))
    for model in models:
        model_gamma, model_kappa = (gamma, kappa) if model.models_loss else (1.0, 1.0)
        own = np.zeros(len(gates))
        if model.gradients is not None:
            scaled = [model_gamma * model.weight * g.double() for g in model.gradients]
            own = gates.total([g * w for g, w in zip(scaled, weights, strict=True)])
        slope += own
        scale = model_kappa * model.weight / model.dispersion
        if coupling != 1 and model.models_loss:
            diagonal += (1 - coupling) * scale / 2 * model.diagonal
            scale *= coupling
        if model.factor is not None and model.models_loss:
            factors.append((model.factor * (scale / 2) ** 0.5).cpu().numpy())
        else:  # dense; terms that do not model the loss are subtracted from the prediction
            dense = scale * _dense(model)
            matrix = matrix + dense if len(matrix) else dense
            if not model.models_loss:
                others.append(Quadratic(own, dense))
    x0 = start.astype(np.float64)

    def pieces(coupled: Float) -> tuple[Float, float]:
        """Linear terms and offset, given Cx⁰."""
        squares = penalty + diagonal  # of the moves
        linear = -slope - coupled + squares * (1 - 2 * x0)
        return linear, float(slope @ x0 + 0.5 * x0 @ coupled + squares @ x0)

    if factors and not len(matrix):
        factor = factors[0] if len(factors) == 1 else np.concatenate(factors)
        wide = factor.astype(np.float64)
        linear, offset = pieces(2 * (wide.T @ (wide @ x0)))
        problem = _constrained_problem(gates, start, factor, linear, offset, ones)
        return Block(gates, start, problem, penalty, kappa=kappa)
    if not len(matrix):
        matrix = np.zeros((len(gates), len(gates)))
    for factor in factors:
        wide = factor.astype(np.float64)
        matrix = matrix + 2 * (wide.T @ wide)
    linear, offset = pieces(matrix @ x0)
    problem = _constrained_problem(gates, start, 0.5 * matrix + np.diag(linear), None, offset, ones)
    # If no term models the loss, the others are the prediction.
    others = others if any(model.models_loss for model in models) else []
    return Block(gates, start, problem, penalty, others, kappa)


def _constrained_problem(
    gates: Gates,
    start: npt.NDArray[np.uint8],
    coefficients: npt.NDArray[Any],
    linear: Float | None,
    offset: float,
    ones: npt.NDArray[np.int64] | None,
) -> CardinalityQUBO | BudgetQUBO:
    """Return the problem of Q, or of a factor and linear terms, with the block's constraint."""
    if gates.limits is None:
        groups, k = _cardinalities(gates, start)
        k = k if ones is None else ones
        if linear is None:
            return CardinalityQUBO(coefficients, k, groups=groups, offset=offset)
        return CardinalityQUBO.from_factors(coefficients, linear, k, groups=groups, offset=offset)
    limits = gates.limits
    constraint: Any = {"groups": limits.sets, "most": limits.most, "offset": offset}
    if linear is None:
        return BudgetQUBO(coefficients, limits.costs, limits.budget, **constraint)
    return BudgetQUBO.from_factors(coefficients, linear, limits.costs, limits.budget, **constraint)


def _dense(model: QuadraticModel) -> Float:
    """Return C in float64, symmetrised: float32 sums depend on their order."""
    if model.matrix is not None:
        wide: Float = model.matrix.double().cpu().numpy()
        return (wide + wide.T) / 2
    if model.factor is None:
        raise ValueError("a quadratic model has neither a factor nor a matrix")
    factor: Float = model.factor.double().cpu().numpy()
    return factor.T @ factor


def _cardinalities(
    gates: Gates, start: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64] | None, int | npt.NDArray[np.int64]]:
    """Return the groups and the number of pruned gates of each in the current state."""
    if gates.labels is None:
        return None, int(start.sum())
    _, compact = torch.unique(gates.labels, return_inverse=True)
    groups = compact.cpu().numpy()
    return groups, np.bincount(groups, weights=start).astype(np.int64)
