"""Second moments of the layers' inputs, gathered while data runs through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icbs.baselines.walk import Feed
from icbs.layers import Layer
from icbs.samples import Samples

IGNORED = -100


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
        shape = (width, width) if gram else (width,)
        self.total = torch.zeros(shape, dtype=dtype, device=layer.dense.device)

    def add(self, inputs: Tensor, counted: Tensor | None) -> None:
        """Take a call's inputs, shape (N, …, in), and which positions count, shape (N, T)."""
        features = inputs.reshape(-1, self.layer.shape[1])
        if counted is not None and len(features) == counted.numel():
            features = features[counted.flatten()]
        wide = features.to(self.total.dtype)
        self.count += len(wide)
        if self.gram:
            self.total.addmm_(wide.T, wide)
        else:
            self.total += wide.square().sum(dim=0)

    @property
    def norms(self) -> Tensor:
        """``‖X_j‖₂`` of each input, shape (in,)."""
        return (self.total.diagonal() if self.gram else self.total).sqrt()

    @property
    def mean(self) -> Tensor:
        """Total over the number of positions."""
        return self.total / max(1, self.count)


def gather(layers: Sequence[Layer], feed: Feed, *, gram: bool) -> dict[str, Moments]:
    """Run the data through some layers and return the moments of their inputs, by name."""
    moments = {layer.name: Moments(layer, gram=gram) for layer in layers}
    for piece, run in feed:
        with _listening(moments, counted(piece)):
            run()
    return moments


def counted(piece: Samples) -> Tensor | None:
    """Which positions of sequences count, bool, shape (N, T); None where all do.

    Those outside of the inputs' ``attention_mask``, or with labels of −100 where there is
    none, are padding.
    """
    inputs, labels = piece.inputs, piece.targets
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None and labels.ndim == 2 and not labels.is_floating_point():
        mask = labels != IGNORED
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return None
    return mask.bool()


@contextmanager
def _listening(moments: Mapping[str, Moments], counted: Tensor | None) -> Iterator[None]:
    def hook_of(moment: Moments) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            moment.add(args[0].detach(), counted)

        return hook

    handles = [m.layer.module.register_forward_pre_hook(hook_of(m)) for m in moments.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
