"""Snapshots of the masks and weights of all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from icbs.export.masks import pack_bits, unpack_bits
from icbs.model.layer import Layer


class _Counts(Protocol):
    current: int
    best: int


@dataclass
class Snapshot:
    """Masks of all layers, and replaced weights."""

    pruned: dict[str, Tensor] = field(default_factory=dict)
    """By layer name, True = pruned, flat."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """By layer name, shape (out, in); without layers that have the weights of the dense model."""

    @classmethod
    def take(cls, layers: Sequence[Layer]) -> Snapshot:
        """Copy the current masks and weights."""
        return cls(
            {layer.name: layer.pruned.clone() for layer in layers},
            # Dense weights are replaced, never modified in place: no copy is needed.
            {layer.name: layer.dense for layer in layers if layer.replaced},
        )

    def apply(self, layers: Sequence[Layer]) -> None:
        """Set masks and weights."""
        for layer in layers:
            weights = self.weights.get(layer.name)
            if weights is not None and weights is not layer.dense:
                layer.replace_weights(weights)
            elif weights is None and layer.replaced:
                layer.restore_weights()
            layer.set_mask(self.pruned[layer.name])

    def kept(self) -> dict[str, int]:
        """Return the number of unpruned weights by layer name."""
        return {name: int((~pruned).sum()) for name, pruned in self.pruned.items()}

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return all tensors, with keys that begin with the prefix."""
        masks = {f"{prefix}/{name}": pack_bits(pruned) for name, pruned in self.pruned.items()}
        weights = {f"{prefix}-weights/{name}": w.cpu().clone() for name, w in self.weights.items()}
        return masks | weights

    @classmethod
    def read(
        cls,
        prefix: str,
        layers: Sequence[Layer],
        tensors: Mapping[str, Tensor],
        kept: Mapping[str, _Counts],
    ) -> Snapshot:
        """Rebuild a snapshot from the result of :meth:`tensors`.

        Raises
        ------
        ValueError
            If a mask does not keep as many weights as recorded, or weights have another shape.
        """
        found = cls()
        for layer in layers:
            mask = unpack_bits(tensors[f"{prefix}/{layer.name}"], (layer.size,)).to(
                layer.dense.device
            )
            count = getattr(kept[layer.name], prefix)
            if (number := int((~mask).sum())) != count:
                raise ValueError(
                    f"the {prefix} mask of {layer.name!r} keeps {number} weights; the header "
                    f"records {count}"
                )
            found.pruned[layer.name] = mask
            weights = tensors.get(f"{prefix}-weights/{layer.name}")
            if weights is None:
                continue
            if weights.shape != layer.dense.shape or weights.dtype != layer.dense.dtype:
                raise ValueError(
                    f"the {prefix} weights of {layer.name!r} are {weights.dtype}"
                    f"{tuple(weights.shape)}"
                )
            if not torch.isfinite(weights).all():
                raise ValueError(f"the {prefix} weights of {layer.name!r} are not finite")
            found.weights[layer.name] = weights.clone().to(layer.dense.device)
        return found
