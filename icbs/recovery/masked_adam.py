"""Adam over given tensors of a model, with masks that hold in each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icbs.model.layer import Layer
from icbs.recovery.trained import Full


class MaskedAdam:
    """Adam (Kingma and Ba 2014) with a learning rate that decreases linearly to 0.

    There is no weight decay. Half-precision tensors are updated in float32.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Parameters of the model to update, by name.
    layers : sequence of Layer
        Layers whose masks hold.
    rate : float
        Initial learning rate.
    steps : int
        Number of steps after which the rate is 0.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], layers: Sequence[Layer], rate: float, steps: int
    ) -> None:
        self._tensors = list(tensors.values())
        pruned = {
            f"{layer.name}.weight": layer.kind.shaped(layer.pruned.view(layer.shape))
            for layer in layers
        }
        self._trained = [Full(t.detach(), pruned.get(name)) for name, t in tensors.items()]
        values = [value for full in self._trained for value in full.optimised()]
        self._adam = torch.optim.Adam(values, lr=rate, betas=(0.9, 0.95))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: max(0.0, 1 - step / steps)
        )

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """Take a step down the gradient of a loss."""
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, self._tensors, allow_unused=True)
        for full, gradient in zip(self._trained, gradients, strict=True):
            if gradient is not None:
                full.accept(gradient)
        self._adam.step()
        self._schedule.step()
        for full in self._trained:
            full.write()
