"""The loss on held-out training samples, and how it answers to one block cheaply.

A block changes a few hundred weights of one layer. Whatever ran before that layer's call
keeps its values, and the layer's own output changes by as many axpys as weights moved; so
the outputs of the prunable layers are remembered, and a trial computes only what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from icbs.layers import Layer
from icbs.objective import Objective
from icbs.samples import Samples
from icbs.trees import call


@dataclass
class Memo:
    """A layer's last call on one piece of the samples, features first (contiguous rows)."""

    inputs: Tensor
    """Shape (in, P)."""
    outputs: Tensor
    """Shape (out, P)."""
    shape: torch.Size
    """Shape in which the module returned its outputs."""

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor) -> Memo:
        """Remember a call."""
        features = [t.reshape(-1, t.shape[-1]).T.contiguous() for t in (inputs, outputs)]
        return cls(features[0], features[1], outputs.shape)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the outputs, in the module's own layout, in place of computing them."""
        return self.outputs.T.reshape(self.shape)


@dataclass
class Piece:
    """Samples evaluated in one forward pass, and what is remembered of the current state."""

    samples: Samples
    memos: dict[str, Memo] = field(default_factory=dict)
    """By layer name, in the order in which the layers run."""


class HoldOut:
    """Mean loss on held-out samples: :meth:`measure` once, then :meth:`trial` by trial.

    Parameters
    ----------
    model : callable
        The model, in evaluation mode.
    layers : sequence of Layer
        Its prunable layers.
    objective : Objective
    samples : Samples
        Never used for gradients.
    batch_size : int
        Samples in one forward pass.
    remember : bool, default True
        Keep the layers' inputs and outputs, (in + out) numbers a sample and layer.
    """

    def __init__(
        self,
        model: Callable[..., object],
        layers: Sequence[Layer],
        objective: Objective,
        samples: Samples,
        batch_size: int,
        *,
        remember: bool = True,
    ) -> None:
        self.model = model
        self.layers = list(layers)
        self.objective = objective
        self.count = len(samples)
        self.pieces = [
            Piece(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)
        ]
        self.remember = remember
        self._pending: list[dict[str, Memo]] = []

    def measure(self) -> float:
        """Evaluate from scratch and refresh what is remembered."""
        self._pending, total = [], 0.0
        for piece in self.pieces:
            piece.memos = {}
            total += self._run(piece, {}, piece.memos)
        return total / self.count

    def trial(self, layer: Layer, index: Tensor, change: Tensor) -> float:
        """Loss after a layer's weights at flat ``index`` have changed by ``change``.

        The weights must have been written already. :meth:`commit` makes the trial's
        activations those of the current state; without it they are forgotten.
        """
        if not self.remember:
            return self.measure()
        rows, columns = layer.unravel(index)
        self._pending, total = [], 0.0
        for piece in self.pieces:
            order = list(piece.memos)
            earlier = order[: order.index(layer.name)]
            memo = piece.memos[layer.name]
            outputs = memo.outputs.clone()
            outputs.index_add_(0, rows, memo.inputs[columns].mul_(change[:, None]))
            fresh = {layer.name: Memo(memo.inputs, outputs, memo.shape)}
            known = {name: piece.memos[name] for name in earlier} | fresh
            total += self._run(piece, known, fresh)
            self._pending.append(fresh)
        return total / self.count

    def commit(self) -> None:
        """Make the last trial the current state."""
        for piece, fresh in zip(self.pieces, self._pending, strict=False):
            piece.memos.update(fresh)
        self._pending = []

    @torch.no_grad()
    def _run(self, piece: Piece, known: dict[str, Memo], fresh: dict[str, Memo]) -> float:
        """Total loss of a piece; known layers answer from memory, others go into ``fresh``."""
        for layer in self.layers:
            memo = known.get(layer.name)
            forward = memo.answer if memo is not None else self._recorder(layer, fresh)
            layer.module.forward = forward  # type: ignore[method-assign, assignment]
        try:
            outputs = call(self.model, piece.samples.inputs)
        finally:
            for layer in self.layers:
                del layer.module.forward
        return float(self.objective.total(outputs, piece.samples.targets))

    def _recorder(self, layer: Layer, fresh: dict[str, Memo]) -> Callable[[Tensor], Tensor]:
        compute = type(layer.module).forward

        def forward(inputs: Tensor) -> Tensor:
            outputs = compute(layer.module, inputs)
            if layer.name in fresh:
                # A layer that runs twice has no single output to remember.
                self.remember = False
            if self.remember:
                fresh[layer.name] = Memo.of(inputs, outputs)
            return outputs

        return forward
