"""The dense model as a teacher: the divergence of a model's outputs from the dense model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs.data.losses import CausalLMLoss, ClassificationLoss, logits_of, widened
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.errors import ConfigError, DataError

if TYPE_CHECKING:
    from icbs.recovery.subject import Subject


class Teacher:
    """Divergence from the dense model, as a loss whose targets are the dense model's outputs.

    For a cross-entropy it is ``τ² KL(dense ‖ model)`` of the class probabilities at temperature τ
    (Hinton et al. 2015, arXiv 1503.02531), averaged over the positions of a sample that its labels
    count; for a binary cross-entropy, that of each output; for the squared and the absolute error,
    the loss itself.

    Parameters
    ----------
    dense : nn.Module
        In evaluation mode.
    objective : Objective
        The loss for the targets of the data.
    temperature : float, default 1

    Raises
    ------
    DataError
        For a loss without a known distribution.
    """

    def __init__(self, dense: nn.Module, objective: Objective, temperature: float = 1.0) -> None:
        self.dense, self.objective, self.temperature = dense, objective, temperature
        loss = objective.loss
        self._causal = isinstance(loss, CausalLMLoss)
        self._plain = isinstance(loss, nn.CrossEntropyLoss) or loss is F.cross_entropy
        self._classes = self._plain or isinstance(loss, CausalLMLoss | ClassificationLoss)
        self._binary = isinstance(loss, nn.BCEWithLogitsLoss)
        self._binary |= loss is F.binary_cross_entropy_with_logits
        errors = nn.MSELoss | nn.L1Loss | nn.HuberLoss | nn.SmoothL1Loss
        self._errors = isinstance(loss, errors)
        if not (self._classes or self._binary or self._errors):
            raise DataError(
                f"the dense model can't be the target under the loss "
                f"{getattr(loss, '__name__', type(loss).__name__)}, which has no known "
                "distribution: use the targets of the data (target='data'), or one of torch's "
                "losses"
            )

    @torch.no_grad()
    def outputs(self, piece: Samples) -> Tensor:
        """Return the dense model's outputs for some samples."""
        return widened(logits_of(self.objective.run(self.dense, piece.inputs))).detach()

    def total(self, outputs: Any, taught: Tensor, targets: Tensor) -> Tensor:
        """Return the divergence, summed over samples.

        Parameters
        ----------
        outputs
            Of the model.
        taught : Tensor
            Those of the dense model, by :meth:`outputs`.
        targets : Tensor
            Of the data, which tell the positions that count.
        """
        found = widened(logits_of(outputs))
        if self._errors:
            return self.objective.total(found, taught)
        if self._binary:
            shares = torch.sigmoid(taught)
            each = F.binary_cross_entropy_with_logits(found, shares, reduction="none")
            each = each - F.binary_cross_entropy_with_logits(taught, shares, reduction="none")
            return each.flatten(1).mean(dim=1).sum()
        axis = 1 if self._plain else -1
        each = self._divergence(found.movedim(axis, -1), taught.movedim(axis, -1))
        if each.ndim == 1:
            return each.sum()
        counted = self._counted(each, targets).flatten(1)
        each = each.flatten(1).masked_fill(~counted, 0)
        return (each.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).sum()

    def _divergence(self, found: Tensor, taught: Tensor) -> Tensor:
        """Return ``τ² KL`` over the last dimension."""
        tau = self.temperature
        own, other = ((values / tau).log_softmax(-1) for values in (found, taught))
        return tau**2 * F.kl_div(own, other, reduction="none", log_target=True).sum(-1)

    def _counted(self, each: Tensor, targets: Tensor) -> Tensor:
        """Return which positions count, by the labels of the data."""
        if targets.is_floating_point() or targets.shape != each.shape:
            return torch.ones_like(each, dtype=torch.bool)
        counted = targets != self.objective.ignored
        if self._causal:  # logits at t predict the token at t + 1
            return torch.cat([counted[:, 1:], torch.zeros_like(counted[:, :1])], dim=1)
        return counted


def teacher_of(subject: Subject, target: str, temperature: float = 1.0) -> Teacher | None:
    """Return the teacher of a subject for a setting ``target``: None for ``data``.

    Raises
    ------
    ConfigError
        If the target is ``dense``, and there is no dense model.
    DataError
        If the loss has no known distribution.
    """
    if target == "data":
        return None
    if subject.dense is None:
        raise ConfigError(
            "target='dense' needs the dense model, and this one is pruned already; pass the dense "
            "model (dense), or set target='data'"
        )
    return Teacher(subject.dense, subject.objective, temperature)
