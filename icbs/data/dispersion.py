"""The dispersion of a loss: how much of it is one nat."""

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

    Those of torch are, and any loss that draws targets from its own distribution by a method
    ``sample``.
    """
    known = isinstance(loss, LIKELIHOODS) or any(loss is function for function in FUNCTIONS)
    return known or hasattr(loss, "sample")


def dispersion(loss: Any, mean: float, targets: Tensor, *, drawn: bool = False) -> float:
    """Estimate the dispersion φ of a loss, by which its Fisher is to be divided.

    The second moment of the gradients of a negative log-likelihood in nats is, in expectation,
    its Hessian. Of another loss ℓ it is not even in the same unit: it grows with the square of
    ℓ. Read as ``p(target | output) ∝ exp(-ℓ/φ)``, of which ℓ/φ is in nats, the Hessian of ℓ is
    ``E[ggᵀ]/φ``. For d entries in a target, and an ℓ that grows with the q-th power of their
    errors, the normaliser is proportional to ``φ^(d/q)``, and φ most likely is ``q/d`` times
    the mean of ℓ. With it the model is exact where errors are as the loss would have them:
    normal for the squared error, Laplacian for the absolute one.

    Parameters
    ----------
    loss : callable
        Likelihoods have φ = 1 (see :func:`is_likelihood`); summed with class weights w, the φ
        that makes up for them, ``E[w²]/E[w]``. Torch's losses for regression have the φ above.
        Of any other loss nothing is known but its unit: φ is its mean.
    mean : float
        Mean loss of the samples whose gradients are taken.
    targets : Tensor, shape (N, …)
        Their targets.
    drawn : bool, default False
        Whether the Fisher's targets are drawn from the distribution that the loss stands for:
        φ makes up for class weights alone.

    Returns
    -------
    float
        1 also where the mean is not positive, as densities may have it.
    """
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and loss.reduction == "sum":
        return _mean_weight(loss.weight, targets, loss.ignore_index)
    if drawn or is_likelihood(loss) or not 0 < mean < math.inf:
        return 1.0
    bend = _bend(loss)
    if bend is None:
        return mean
    entries = max(1, targets[0].numel())
    each = mean / entries if getattr(loss, "reduction", "mean") == "sum" else mean
    return (1 + min(1.0, bend / each)) * mean / entries


def _mean_weight(weight: Tensor | None, targets: Tensor, ignored: int) -> float:
    """Mean of the class weights of targets, each counted with its weight; 1 without weights."""
    if weight is None or targets.is_floating_point():
        return 1.0
    counts = weight.to(targets.device)[targets[targets != ignored]].double()
    return float(counts.square().sum() / counts.sum()) if counts.any() else 1.0


def _bend(loss: Any) -> float | None:
    """Value up to which a regression loss is a square, and beyond which it is linear."""
    if isinstance(loss, nn.MSELoss) or loss is F.mse_loss:
        return math.inf
    if isinstance(loss, nn.L1Loss) or loss is F.l1_loss:
        return 0.0
    if isinstance(loss, nn.HuberLoss) or loss is F.huber_loss:
        return getattr(loss, "delta", 1.0) ** 2 / 2
    if isinstance(loss, nn.SmoothL1Loss) or loss is F.smooth_l1_loss:
        return getattr(loss, "beta", 1.0) / 2
    return None
