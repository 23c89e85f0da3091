"""The loss of a model under many masks at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.layer import Layer
from icbs.model.modes import evaluation_mode

SAMPLES_AT_ONCE = 1 << 17
"""Samples times masks in one forward pass."""
MAX_SAMPLES_AT_ONCE = 2048
"""Samples in one forward pass."""
log = logging.getLogger("icbs")


class MaskLosses:
    """Mean loss over samples, as a function of the mask.

    Masks of one call are evaluated together by :func:`torch.func.vmap`; a model or loss that it
    can't transform is evaluated mask by mask.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; it is not changed.
    layers : sequence of Layer
        Its layers to prune; masks are concatenated layer by layer, row by row.
    objective : Objective
    samples : Samples
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], objective: Objective, samples: Samples
    ) -> None:
        self.model, self.layers, self.objective = model, list(layers), objective
        device = self.layers[0].dense.device
        self.count = len(samples)
        self.pieces = [
            samples[i : i + MAX_SAMPLES_AT_ONCE].to(device)
            for i in range(0, self.count, MAX_SAMPLES_AT_ONCE)
        ]
        with evaluation_mode(model) as plain:
            owners = {id(parameter): name for name, parameter in plain.named_parameters()}
        self.names = [owners[id(layer.module.weight)] for layer in self.layers]
        self.together = True

    @property
    def masks_at_once(self) -> int:
        """Number of masks that are best evaluated in one call."""
        return max(1, SAMPLES_AT_ONCE // min(self.count, MAX_SAMPLES_AT_ONCE))

    @torch.no_grad()
    def __call__(self, keep: Tensor) -> Tensor:
        """Return the loss of each mask.

        Parameters
        ----------
        keep : Tensor of bool, shape (masks, n)
            True where the weight is kept.

        Returns
        -------
        Tensor of float64, shape (masks,)
        """
        keep = keep.to(self.layers[0].dense.device)
        weights, first = {}, 0
        for name, layer in zip(self.names, self.layers, strict=True):
            own = keep[:, first : first + layer.size].view(-1, *layer.shape)
            masked = torch.where(own, layer.dense, layer.dense.new_zeros(()))
            weights[name] = vmap(layer.kind.shaped)(masked)
            first += layer.size
        losses = torch.zeros(len(keep), dtype=torch.float64, device=keep.device)
        with evaluation_mode(self.model) as plain:
            for piece in self.pieces:
                losses += self._totals(plain, weights, piece)
        return losses / self.count

    def _totals(self, model: nn.Module, weights: dict[str, Tensor], piece: Samples) -> Tensor:
        """Return the summed loss of a piece of the samples for each mask."""

        def outputs_of(one: dict[str, Tensor]) -> Any:
            def run(*args: Any, **named: Any) -> Any:
                return functional_call(model, one, args, named)

            return self.objective.run(run, piece.inputs)

        def total(outputs: Any) -> Tensor:
            return self.objective.total(outputs, piece.targets).double()

        if self.together:
            try:
                outputs = vmap(outputs_of)(weights)
                found = self._cross_entropy(outputs, piece.targets)
                return vmap(total)(outputs) if found is None else found
            except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
                self.together = False
                log.info("masks are evaluated one by one: vmap can't run the model (%s)", error)
        count = len(next(iter(weights.values())))
        each = ({name: own[i] for name, own in weights.items()} for i in range(count))
        return torch.stack([total(outputs_of(one)) for one in each])

    def _cross_entropy(self, outputs: Any, targets: Tensor) -> Tensor | None:
        """Return the summed cross-entropy for each mask; None for another loss.

        Sums over the classes, of which there are few, are slow in the order in which models
        return them: with the classes first, losses take a third of the time.
        """
        loss = self.objective.loss
        if type(loss) is not nn.CrossEntropyLoss or targets.is_floating_point():
            return None
        if loss.weight is not None or loss.label_smoothing:
            return None
        if not (isinstance(outputs, Tensor) and outputs.ndim == 3 and targets.ndim == 1):
            return None
        if (targets == loss.ignore_index).any():
            return None
        logits = self.objective.loss_input(outputs).movedim(2, 0).contiguous()
        right = logits.gather(0, targets.expand(1, *logits.shape[1:]))[0]
        return (logits.logsumexp(0) - right).sum(dim=1).double()
