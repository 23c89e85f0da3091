"""Adam over given tensors of a model, with masks that hold in each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from icbs.model.layer import Layer


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
        self.tensors = list(tensors.values())
        pruned = {
            f"{layer.name}.weight": layer.kind.shaped(layer.pruned.view(layer.shape))
            for layer in layers
        }
        self._pruned = [pruned.get(name) for name in tensors]
        self._values = [
            nn.Parameter(t.detach().to(torch.promote_types(t.dtype, torch.float32), copy=True))
            for t in self.tensors
        ]
        self._adam = torch.optim.Adam(self._values, lr=rate, betas=(0.9, 0.95))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: max(0.0, 1 - step / steps)
        )

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """Take a step down the gradient of a loss."""
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, self.tensors, allow_unused=True)
        for value, gradient, pruned in zip(self._values, gradients, self._pruned, strict=True):
            if gradient is not None and pruned is not None:
                gradient = gradient.masked_fill(pruned, 0)
            value.grad = None if gradient is None else gradient.to(value.dtype)
        self._adam.step()
        self._schedule.step()
        for tensor, value, pruned in zip(self.tensors, self._values, self._pruned, strict=True):
            tensor.copy_(value if pruned is None else value.masked_fill(pruned, 0))
