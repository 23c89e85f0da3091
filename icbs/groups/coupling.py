"""Shrinkage of the couplings between groups, estimated from the samples of a pass.

The Fisher information of n groups from N < n samples is singular: there are moves of many groups
that cost nothing in the model, and much in truth. As in a shrunk covariance matrix, the
correlations are therefore multiplied by ``1 - λ``, with the λ of least expected squared error

    ``λ = Σ_{i≠j} Var(r_ij) / Σ_{i≠j} r_ij²,   r_ij = F_ij / √(F_ii F_jj)``

(Schäfer and Strimmer 2005, doi 10.2202/1544-6115.1175, section 2.3, for second moments).
"""

from __future__ import annotations

from collections.abc import Sequence

from icbs.curvature.source import QuadraticModel


def estimated_coupling(models: Sequence[QuadraticModel]) -> float:
    """Return the factor ``1 - λ`` on the couplings, in [0, 1].

    Parameters
    ----------
    models : sequence of QuadraticModel
        The first one of the loss with a factor is used; without one, the result is 1.
    """
    factors = [m.factor for m in models if m.models_loss and m.factor is not None]
    if not factors or len(factors[0]) < 2:
        return 1.0
    rows = factors[0].double()
    sizes = rows.square().sum(dim=0).sqrt()
    rows = rows[:, sizes > 0] / sizes[sizes > 0]
    count, width = rows.shape
    squares = rows.square()
    # Sums over pairs of different groups: over all pairs, less those of a group with itself.
    correlations = float((rows @ rows.T).square().sum()) - width
    if correlations <= 0:
        return 1.0
    products = float((squares.sum(dim=1).square() - squares.square().sum(dim=1)).sum())
    variances = count / (count - 1) * (products - correlations / count)
    return min(1.0, max(0.0, 1 - variances / correlations))
