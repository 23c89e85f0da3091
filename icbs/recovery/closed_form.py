"""The minimum over all kept weights of a quadratic model of the loss, from per-sample gradients.

With rows G (one gradient per sample, N samples) the model of the loss is
``gᵀδ + ½ δᵀ(GᵀG/N + λI)δ``. Its minimum over the kept weights K, with fixed changes ``δ_P = -w_P``
of the pruned ones, needs one system of the size of the rows and one weighted backward pass::

    S = G_K G_Kᵀ,   u = G_P w_P - c,   α = (NλI + S)⁻¹ u,   δ_K = G_Kᵀ α

with ``c = 1`` for ``g = Gᵀ1/N``. With ``c = 0`` it is the update of CBS (arXiv 2203.04466), which
equals the ridge back-solve of CHITA (arXiv 2302.14623) for its ``nλ = Nλ``. At pruned weights
(``w_P = 0``) it is a Levenberg–Marquardt step of the whole model.

If G has gradients for targets drawn from the model (the Fisher information), the gradient g is that
of the data. With ``b = -g_K``::

    α = (NλI + S)⁻¹ (G_P w_P - G_K b/λ),   δ_K = b/λ + G_Kᵀ α

Factors d of the rows in the curvature, ``GᵀDG/N``, scale them: ``√d G`` takes the place of G.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icbs.recovery.direction import Direction
from icbs.recovery.gradient_rows import GradientRows


@dataclass
class ClosedForm:
    """The system of one linearisation, solved for any λ; see the module's docstring."""

    rows: GradientRows
    values: Tensor
    """Eigenvalues of S, shape (R,), float64."""
    vectors: Tensor
    """Eigenvectors of S, columns, shape (R, R)."""
    roots: Tensor
    """√d, the scale of each row in the curvature, shape (R,)."""
    pull: Tensor
    """The part of the right-hand side that does not depend on λ, shape (R,)."""
    descent: Direction | None = None
    """b, the descent direction of the data; None if G has the gradients of the data."""
    along: Tensor | None = None
    """``√d G_K b``, shape (R,)."""

    @classmethod
    def of(
        cls,
        rows: GradientRows,
        *,
        removed: Direction | None = None,
        first_order: float = 1.0,
        gradient: Direction | None = None,
        factors: Tensor | None = None,
        columns: int | None = None,
        generator: torch.Generator | None = None,
    ) -> ClosedForm:
        """Compute S and the right-hand side at the current weights.

        Parameters
        ----------
        rows : GradientRows
        removed : Direction, optional
            ``w_P``: the values of pruned weights that the model still has, and that are about to
            become 0; 0 at kept weights. None for a model whose pruned weights are 0 already.
        first_order : float, default 1
            c, the weight of the first-order term.
        gradient : Direction, optional
            Mean gradient of the data, 0 at pruned weights, if the rows are those of other targets.
        factors : Tensor, shape (R,), optional
            d, positive; 1 by default.
        columns : int, optional
            Estimate S from that many random columns, if there is a gradient and more weights are
            kept; see :meth:`icbs.recovery.gradient_rows.GradientRows.sampled_gram`.
        generator : torch.Generator, optional
            Chooses the columns.
        """
        along = None
        descent = None if gradient is None else gradient.scaled(-first_order)
        kept = sum(layer.num_kept for layer in rows.layers)
        if descent is None or columns is None or generator is None or columns >= kept:
            gram = rows.gram()
        else:
            gram, along = rows.sampled_gram(columns, generator, descent)
        roots = torch.ones(len(rows), dtype=torch.float64, device=gram.device)
        if factors is not None:
            roots = factors.to(roots).sqrt()
        # Symmetric up to rounding; eigh reads one triangle.
        values, vectors = torch.linalg.eigh(roots[:, None] * gram * roots)
        pull = torch.zeros_like(roots)
        if removed is not None:
            pull += roots * rows.along(removed)
        if descent is None:
            return cls(rows, values.clamp(min=0), vectors, roots, pull - first_order / roots)
        if along is None:
            along = rows.along(descent)
        return cls(rows, values.clamp(min=0), vectors, roots, pull, descent, roots * along)

    @property
    def scale(self) -> float:
        """Largest eigenvalue of the curvature ``GᵀDG/N``, the unit of λ."""
        return float(self.values[-1]) / self.rows.count

    def coefficients(self, damping: float) -> Tensor:
        """Return α of the scaled rows for a damping λ, shape (R,)."""
        right = self.pull
        if self.along is not None:
            right = right - self.along / damping
        shifted = self.values + self.rows.count * damping
        return self.vectors @ ((self.vectors.T @ right) / shifted)

    def solve(self, damping: float) -> Direction:
        """Return ``δ_K`` for a damping λ > 0, 0 at pruned weights; one backward pass."""
        return self.solve_all([damping])[0]

    def solve_all(self, dampings: Sequence[float]) -> list[Direction]:
        """Return ``δ_K`` for several dampings, by one backward pass."""
        alphas = torch.stack([self.coefficients(d) for d in dampings])
        found = self.rows.combine_all(self.roots * alphas)
        if self.descent is None:
            return found
        return [
            direction.add_(self.descent.scaled(1 / damping))
            for direction, damping in zip(found, dampings, strict=True)
        ]

    def predicted(self, damping: float) -> float:
        """Return the change of the loss in the model without damping, for pruned weights at 0."""
        alpha = self.coefficients(damping)
        moved = self.vectors @ (self.values * (self.vectors.T @ alpha))
        if self.descent is None:
            slope = -float(self.pull @ moved)
        else:
            assert self.along is not None
            moved = moved + self.along / damping
            slope = -float(self.along @ alpha) - self.descent.dot(self.descent) / damping
            return slope + float(moved @ moved) / (2 * self.rows.count)
        return (slope + float(moved @ moved) / 2) / self.rows.count
