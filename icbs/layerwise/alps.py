"""ALPS (Meng et al. 2024, arXiv 2406.07831) for the matrix of one layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icbs.config.constraints import Pattern
from icbs.layerwise.conjugate_gradients import solve_on_support
from icbs.selection.scores import initial_mask

PENALTY = 0.1
"""Initial ρ, for a Hessian with unit diagonal."""
CHECK_EVERY = 3
"""Iterations between two changes of ρ."""
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""Factor on ρ if the support has changed by more than a share of the kept weights."""
SETTLED = (30, 3e-4)
"""Iteration from which on the search ends when the support changes by less than this share."""
RESTART = 5.0
"""Divisor of ρ if the first iterations don't change the support."""
POLISH = 10
"""Iterations of conjugate gradients on the support; the paper's number."""


def alps(
    weight: Tensor,
    gram: Tensor,
    keep: int,
    pattern: Pattern | None = None,
    *,
    damping: float = 0.01,
    iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """Choose a mask by ADMM, then minimise the error of the layer's output over its weights.

    The problem is ``min ‖(W - W⁰)Xᵀ‖² + λ‖W - W⁰‖²`` with ``keep`` weights. ADMM splits W from a
    sparse copy D, and raises the penalty ρ on their difference while the support of D settles
    (section 3.2 of the paper); conjugate gradients on the support follow (section 3.3). Inputs are
    scaled so that H has a unit diagonal. Unlike in the paper, the search's result is compared with
    its initial mask (Wanda's, ranked within the layer), and the better one is returned.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
        Dense weights; not modified.
    gram : Tensor, shape (in, in)
        ``XᵀX/N``, the second moments of the inputs.
    keep : int
        Number of weights to keep; ignored with a pattern.
    pattern : Pattern, optional
        N:M, for each output.
    damping : float, default 0.01
        λ, as a share of the mean of H's diagonal.
    iterations : int, default 300
        Maximum number of iterations of ADMM.

    Returns
    -------
    weight : Tensor, shape (out, in)
        Pruned and updated weights, in the dtype of ``weight``.
    mask : Tensor of bool, shape (out, in)
        True where kept.

    Raises
    ------
    torch.linalg.LinAlgError
        If the eigenvalues of H can't be computed.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    hessian = gram.double()
    # An input that is always 0 everywhere leaves nothing to choose; 1 keeps H invertible.
    mean = hessian.diagonal().mean()
    hessian = hessian + (damping * mean + (mean == 0)) * torch.eye(
        len(hessian), dtype=hessian.dtype, device=hessian.device
    )
    scale = hessian.diagonal().sqrt()
    scaled = (hessian / scale / scale[:, None]).to(wide)
    dense = weight.to(wide) * scale.to(wide)
    search = _Admm(dense, scaled, keep, pattern)
    found = [search.polished(kept) for kept in (search.best(dense), search.run(iterations))]
    _, solution, kept = min(found, key=lambda each: each[0])
    return (solution / scale.to(wide)).to(weight.dtype), kept


@dataclass
class _Admm:
    """The search for the support, in scaled variables."""

    dense: Tensor
    hessian: Tensor
    keep: int
    pattern: Pattern | None

    def run(self, iterations: int) -> Tensor:
        """Return the mask of kept weights."""
        # One eigendecomposition makes the inverse for each ρ a product.
        values, vectors = torch.linalg.eigh(self.hessian)
        target = self.dense @ self.hessian
        penalty = PENALTY
        while True:
            kept, changed = self._search(values.clamp(min=0), vectors, target, penalty, iterations)
            if changed or penalty < PENALTY / 1e3:
                return kept
            penalty /= RESTART

    def _search(
        self, values: Tensor, vectors: Tensor, target: Tensor, penalty: float, iterations: int
    ) -> tuple[Tensor, bool]:
        """Iterate from the dense weights; return the mask, and whether it ever changed."""
        sparse, dual = self.dense, torch.zeros_like(self.dense)
        kept = checked = self.best(self.dense)
        number = int(kept.sum())
        changed = False
        for step in range(1, iterations + 1):
            side = target - dual + penalty * sparse
            weight = ((side @ vectors) / (values + penalty)) @ vectors.T
            moved = weight + dual / penalty
            kept = self.best(moved)
            sparse = torch.where(kept, moved, 0)
            dual = dual + penalty * (weight - sparse)
            if step % CHECK_EVERY:
                continue
            difference = int((kept ^ checked).sum())
            checked = kept
            if not difference and not changed:
                return kept, False
            changed = True
            if not difference or (step >= SETTLED[0] and difference < SETTLED[1] * number):
                break
            penalty *= next(factor for share, factor in GROWTH if difference >= share * number)
        return kept, changed

    def polished(self, kept: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return the error of the layer with the best weights on a support, these, and it."""
        sides = self.dense @ self.hessian
        (found,) = solve_on_support(
            *(self.hessian[None], sides[None], kept[None], self.dense[None]), iterations=POLISH
        )
        change = found - self.dense
        return float(((change @ self.hessian) * change).sum()), found, kept

    def best(self, weight: Tensor) -> Tensor:
        """Return the mask of the largest weights."""
        pruned = initial_mask(weight.abs(), self.keep, "layer", self.pattern)
        return ~pruned.view(weight.shape)
