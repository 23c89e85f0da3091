"""Second moments of the layers' inputs, gathered while data runs through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.positions import counted_positions
from icbs.layerwise.walk import Feed
from icbs.model.calls import inputs_and_output
from icbs.model.layer import Layer


class Moments:
    """Sums of ``x_j²``, or of ``x_i x_j``, over the positions that a layer has seen.

    Parameters
    ----------
    layer : Layer
    gram : bool
        All products rather than the squares alone.
    """

    def __init__(self, layer: Layer, *, gram: bool) -> None:
        self.layer, self.gram = layer, gram
        self.count = 0
        """Positions."""
        width = layer.shape[1]
        dtype = torch.promote_types(layer.dense.dtype, torch.float32)
        shape = (layer.kind.groups, width, width) if gram else (layer.kind.groups, width)
        self.total = torch.zeros(shape, dtype=dtype, device=layer.dense.device)
        """Of each group of inputs."""

    def add(self, inputs: Tensor, outputs: torch.Size, counted: Tensor | None) -> None:
        """Take a call's inputs and which positions count, shape (N, T)."""
        if not inputs.numel():  # an expert that is called with nothing
            return
        features = self.layer.kind.features(inputs, outputs, len(inputs)).flatten(0, 1)
        if counted is not None and len(features) == counted.numel():
            features = features[counted.flatten()]
        wide = features.to(self.total.dtype).unflatten(1, (self.layer.kind.groups, -1))
        self.count += len(wide)
        if self.gram:
            wide = wide.transpose(0, 1)
            self.total.baddbmm_(wide.transpose(1, 2), wide)
        else:
            self.total += wide.square().sum(dim=0)

    @property
    def norms(self) -> Tensor:
        """``‖X_j‖₂`` of what each weight multiplies, shape (out, in); 1 where that is nothing."""
        if not self.count:
            return torch.ones_like(self.layer.dense, dtype=self.total.dtype)
        squares = self.total.diagonal(dim1=1, dim2=2) if self.gram else self.total
        outputs = self.layer.shape[0] // self.layer.kind.groups
        return squares.sqrt().repeat_interleave(outputs, dim=0)

    @property
    def mean(self) -> Tensor:
        """Total over the number of positions, a matrix for each group."""
        return self.total / max(1, self.count)


def gather(layers: Sequence[Layer], feed: Feed, *, gram: bool) -> dict[str, Moments]:
    """Run the data through some layers and return the moments of their inputs, by name."""
    moments = {layer.name: Moments(layer, gram=gram) for layer in layers}
    for piece, run in feed:
        with _listening(moments, counted_positions(piece)):
            run()
    return moments


@contextmanager
def _listening(moments: Mapping[str, Moments], counted: Tensor | None) -> Iterator[None]:
    def hook_of(moment: Moments) -> Callable[..., None]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any
        ) -> None:
            inputs, output = inputs_and_output(moment.layer, args, named, output)
            moment.add(inputs.detach(), output.shape, counted)

        return hook

    handles = [
        moment.layer.module.register_forward_hook(hook_of(moment), with_kwargs=True)
        for moment in moments.values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
