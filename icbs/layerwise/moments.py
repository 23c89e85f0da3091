"""Second moments of the layers' inputs, accumulated in forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from icbs.data.positions import counted_positions
from icbs.layerwise.execution_order import Feed
from icbs.model.calls import inputs_and_output
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer


class Moments:
    """Sums of ``x_j²``, or of ``x_i x_j``, over the positions of a layer's inputs.

    Parameters
    ----------
    layer : Layer
    gram : bool
        Sum all products instead of the squares alone.
    """

    def __init__(self, layer: Layer, *, gram: bool) -> None:
        self.layer, self.gram = layer, gram
        self.count = 0
        """Number of positions."""
        width = layer.shape[1]
        dtype = torch.promote_types(layer.dense.dtype, torch.float32)
        shape = (layer.kind.groups, width, width) if gram else (layer.kind.groups, width)
        self.total = torch.zeros(shape, dtype=dtype, device=layer.dense.device)
        """Sums by group of inputs, shape (groups, in) or (groups, in, in)."""

    def add(self, inputs: Tensor, outputs: torch.Size, counted: Tensor | None) -> None:
        """Add a call's inputs; ``counted`` tells which positions are not padding, (N, T)."""
        if not inputs.numel():  # an expert that gets no samples
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
        """``‖X_j‖₂`` of the inputs of each weight, shape (out, in); 1 without any inputs."""
        if not self.count:
            return torch.ones_like(self.layer.dense, dtype=self.total.dtype)
        squares = self.total.diagonal(dim1=1, dim2=2) if self.gram else self.total
        outputs = self.layer.shape[0] // self.layer.kind.groups
        return squares.sqrt().repeat_interleave(outputs, dim=0)

    @property
    def mean(self) -> Tensor:
        """Total divided by the number of positions, by group."""
        return self.total / max(1, self.count)


def input_moments(layers: Sequence[Layer], feed: Feed, *, gram: bool) -> dict[str, Moments]:
    """Run the samples through some layers and return the moments of their inputs, by name."""
    moments = {layer.name: Moments(layer, gram=gram) for layer in layers}
    modules = {layer.name: layer.module for layer in layers}
    counted: Tensor | None = None

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        inputs, output = inputs_and_output(moments[name].layer, args, named, output)
        moments[name].add(inputs.detach(), output.shape, counted)

    with watch_calls(modules, after=after):
        for piece, run in feed:
            counted = counted_positions(piece)
            run()
    return moments
