"""The block problem: the loss's quadratic model over the gates of a few weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.config.constraints import group_of
from icbs.curvature.passes import Pass
from icbs.model.layer import Layer
from problems import CardinalityQUBO
from problems.read_only import read_only

Float = npt.NDArray[np.float64]


@dataclass
class Block:
    """Weights of one layer that may exchange their places in the mask."""

    layer: Layer
    index: Tensor
    """Flat indices, shape (n,)."""
    start: npt.NDArray[np.uint8]
    """Status quo, 1 = pruned, shape (n,), read-only; its energy is 0."""
    problem: CardinalityQUBO
    penalty: Float
    """Ridge λω, shape (n,): what the energy holds beside the predicted change of the loss."""
    distortion: tuple[Float, Float] | None = None
    """Slope, shape (n,), and curvature, shape (n, n), of the layer's own error, where the
    energy holds it beside a model of the loss."""

    def __post_init__(self) -> None:
        # Copies that no solver ever sees: what the density is held to, whatever one does.
        self.start = read_only(self.start.copy())
        self._groups = self.problem.groups.copy()
        self._counts = self._count(self.start)

    def keeps_counts(self, x: npt.NDArray[np.uint8]) -> bool:
        """Whether a state prunes as many weights of each group as the status quo does."""
        binary = x.shape == self.start.shape and bool(((x == 0) | (x == 1)).all())
        return binary and np.array_equal(self._count(x), self._counts)

    def _count(self, x: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        return np.bincount(self._groups[x != 0], minlength=self.problem.num_groups)

    def predicted(self, x: npt.NDArray[np.uint8], energy: float) -> float:
        """Change of the loss that the quadratic model predicts for a move to ``x``.

        With no model of the loss, the change of the layer's own error.
        """
        change = energy - float(self.penalty @ (x != self.start))
        if self.distortion is not None:
            slope, matrix = self.distortion
            moved = np.flatnonzero(x != self.start)
            u = x[moved].astype(np.float64) - self.start[moved]
            change += float(slope[moved] @ u - 0.5 * u @ matrix[np.ix_(moved, moved)] @ u)
        return change


def build_block(
    layer: Layer, index: Tensor, information: Pass, config: PrunerConfig, kappa: float = 1.0
) -> Block:
    """Turn gradient and curvature on a block into a cardinality-constrained QUBO.

    With the gate gradients ā, κ times their curvature as C, the move ``u = x - x⁰`` and
    ω = w⁰², the model is ``ΔL = -γ ā·u + ½ uᵀCu + λ ω·u²`` (iCBS, arXiv 2411.17796,
    section 3; pruning takes a gate from 1 to 0, hence the minus). Expanded in x:

    - ``Q = ½C + diag(-γā - Cx⁰ + λω(1 - 2x⁰))``
    - ``offset = γ ā·x⁰ + ½ x⁰ᵀCx⁰ + λ ω·x⁰``

    so that the status quo has energy 0. Every sign is kept. Sums are taken in float64.

    Where there is a distortion, ρ times its own gradient and curvature are added, and they
    are added whole: γ and κ make allowance for what a model of the loss leaves out, and the
    error of a layer's output is a quadratic. Without a model of the loss ρ is 1.

    Parameters
    ----------
    layer : Layer
    index : Tensor of int64, shape (n,)
        Flat indices of the block's weights.
    information : Pass
        Mean gradients and curvature at the current weights; a Fisher is divided by the
        dispersion of the loss.
    config : PrunerConfig
        γ, λ and the scope that keeps its cardinality.
    kappa : float, default 1
        κ, weight of the curvature; see ``PrunerConfig.curvature_weight``.
    """
    rows, columns = layer.unravel(index)
    dense = layer.dense[rows, columns].double().cpu().numpy()
    start = layer.pruned[index].cpu().numpy().astype(np.uint8)
    groups, k = _cardinalities(layer, index, start, config)
    penalty = config.ridge * dense**2
    curvature = information.curvature(layer, index)
    slope, matrix = np.zeros(len(dense)), np.zeros((0, 0))
    modelled = curvature.factor is not None or curvature.matrix is not None
    if modelled:
        slope += config.gradient_weight * _wide(information.gradient(layer, index)) * dense
    if curvature.matrix is not None:
        matrix = kappa * _wide(curvature.matrix)
    aside = None
    if curvature.distortion is not None:
        rho = config.gram_weight if modelled else 1.0
        own_slope = rho * _wide(curvature.distortion.gradient) * dense
        own = rho * _wide(curvature.distortion.matrix)
        slope += own_slope
        matrix = matrix + own if len(matrix) else own.copy()
        aside = (own_slope, own) if modelled else None
    x0 = start.astype(np.float64)

    def pieces(coupled: Float) -> tuple[Float, float]:
        """Linear terms and offset, given Cx⁰."""
        linear = -slope - coupled + penalty * (1 - 2 * x0)
        return linear, float(slope @ x0 + 0.5 * x0 @ coupled + penalty @ x0)

    if curvature.factor is not None:
        scale = kappa / information.dispersion
        factor = (curvature.factor * (scale / 2) ** 0.5).cpu().numpy()
        wide = factor.astype(np.float64)
        if not len(matrix):
            linear, offset = pieces(2 * (wide.T @ (wide @ x0)))
            problem = CardinalityQUBO.from_factors(factor, linear, k, groups=groups, offset=offset)
            return Block(layer, index, start, problem, penalty)
        matrix += 2 * (wide.T @ wide)
    linear, offset = pieces(matrix @ x0)
    problem = CardinalityQUBO(0.5 * matrix + np.diag(linear), k, groups=groups, offset=offset)
    return Block(layer, index, start, problem, penalty, aside)


def _wide(tensor: Tensor) -> Float:
    return tensor.double().cpu().numpy()


def _cardinalities(
    layer: Layer, index: Tensor, start: npt.NDArray[np.uint8], config: PrunerConfig
) -> tuple[npt.NDArray[np.int64] | None, int | npt.NDArray[np.int64]]:
    """Find the groups that keep their counts, and those counts as the status quo has them."""
    if config.constraint == "layer":
        return None, int(start.sum())
    labels = group_of(index, layer.shape[1], config.constraint)
    _, compact = torch.unique(labels, return_inverse=True)
    groups = compact.cpu().numpy()
    return groups, np.bincount(groups, weights=start).astype(np.int64)
