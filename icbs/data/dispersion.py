"""The dispersion of a loss: its scale in nats."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

LIKELIHOODS = (
    *(nn.CrossEntropyLoss, nn.NLLLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss),
    *(nn.MultiLabelSoftMarginLoss, nn.SoftMarginLoss, nn.CTCLoss),
    *(nn.PoissonNLLLoss, nn.GaussianNLLLoss),
)
FUNCTIONS = (
    *(F.cross_entropy, F.nll_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits),
    *(F.kl_div, F.multilabel_soft_margin_loss, F.soft_margin_loss, F.ctc_loss),
    *(F.poisson_nll_loss, F.gaussian_nll_loss),
)


def is_likelihood(loss: Any) -> bool:
    """Whether a loss is known to be a negative log-likelihood in nats.

    True for torch's likelihoods, and for any loss with a method ``sample`` that draws targets
    from its distribution.
    """
    known = isinstance(loss, LIKELIHOODS) or any(loss is function for function in FUNCTIONS)
    return known or hasattr(loss, "sample")


def dispersion(loss: Any, mean: float, targets: Tensor, *, drawn: bool = False) -> float:
    """Estimate the dispersion φ of a loss; the Fisher matrix is divided by it.

    The second moment of the gradients of a negative log-likelihood in nats is, in expectation,
    its Hessian. For any other loss ℓ the units differ: the second moment grows with the square
    of ℓ. With the likelihood ``p(target | output) ∝ exp(-ℓ/φ)``, ℓ/φ is in nats, and the
    Hessian of ℓ is ``E[ggᵀ]/φ``. For targets of d entries, and an ℓ that grows with the q-th
    power of their errors, the normaliser is proportional to ``φ^(d/q)``, and the maximum
    likelihood estimate of φ is ``q/d`` times the mean of ℓ. The model is then exact for errors
    distributed as the loss implies: normal for the squared error, Laplacian for the absolute
    error.

    Parameters
    ----------
    loss : callable
        Likelihoods have φ = 1 (see :func:`is_likelihood`), or ``E[w²]/E[w]`` if they are summed
        with class weights w. Torch's regression losses have the φ above. Of other losses only
        the unit is known: φ is the mean loss.
    mean : float
        Mean loss of the samples that the gradients are computed on.
    targets : Tensor, shape (N, …)
        Their targets.
    drawn : bool, default False
        Whether the Fisher's targets are drawn from the loss's own distribution: φ then
        accounts for class weights only.

    Returns
    -------
    float
        Also 1 if the mean is not positive, as log-densities can be.
    """
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and loss.reduction == "sum":
        return _mean_weight(loss.weight, targets, loss.ignore_index)
    if drawn or is_likelihood(loss) or not 0 < mean < math.inf:
        return 1.0
    threshold = _quadratic_until(loss)
    if threshold is None:
        return mean
    entries = max(1, targets[0].numel())
    each = mean / entries if getattr(loss, "reduction", "mean") == "sum" else mean
    return (1 + min(1.0, threshold / each)) * mean / entries


def _mean_weight(weight: Tensor | None, targets: Tensor, ignored: int) -> float:
    """Return E[w²]/E[w] of the class weights of targets; 1 without weights."""
    if weight is None or targets.is_floating_point():
        return 1.0
    counts = weight.to(targets.device)[targets[targets != ignored]].double()
    return float(counts.square().sum() / counts.sum()) if counts.any() else 1.0


def _quadratic_until(loss: Any) -> float | None:
    """Return the value above which a regression loss is linear instead of quadratic."""
    if isinstance(loss, nn.MSELoss) or loss is F.mse_loss:
        return math.inf
    if isinstance(loss, nn.L1Loss) or loss is F.l1_loss:
        return 0.0
    if isinstance(loss, nn.HuberLoss) or loss is F.huber_loss:
        return getattr(loss, "delta", 1.0) ** 2 / 2
    if isinstance(loss, nn.SmoothL1Loss) or loss is F.smooth_l1_loss:
        return getattr(loss, "beta", 1.0) / 2
    return None
