"""The loss on held-out training samples, with incremental evaluation of one block's change.

A block changes a few hundred weights of one layer. The outputs of earlier layers stay the same,
and the change of a linear layer's output is one axpy per weight. The outputs of prunable layers
are therefore cached, and a trial computes only the layers after the changed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from icbs import parallel
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.hooks import replaced_forward
from icbs.model.kinds import Kind
from icbs.model.layer import Layer


@dataclass
class Memo:
    """Cached outputs of a layer's last call on one part of the samples."""

    outputs: Tensor
    """Features first, shape (out, P), if changes can be added; else in the module's shape."""
    shape: torch.Size
    """Shape of the module's outputs."""
    inputs: Tensor | None = None
    """Shape (in, P); None if the layer must be computed again when its weights change."""

    @classmethod
    def of(cls, kind: Kind, inputs: Tensor, outputs: Tensor) -> Memo:
        """Cache a call."""
        # In half precision, added changes would drift from the layer's own outputs.
        if not kind.pointwise or outputs.element_size() < 4:
            return cls(outputs, outputs.shape)
        # Contiguous rows, since each moved weight adds a row of inputs to a row of outputs;
        # copies, since the model may change these tensors in place.
        rows_in, rows_out = (
            t.reshape(-1, t.shape[-1]).T.clone(memory_format=torch.contiguous_format)
            for t in (inputs, outputs)
        )
        return cls(rows_out, outputs.shape, rows_in)

    def result(self) -> Tensor:
        """Return the cached outputs in the module's shape."""
        return self.outputs if self.inputs is None else self.outputs.T.reshape(self.shape)

    def changed(self, rows: Tensor, columns: Tensor, change: Tensor) -> Memo | None:
        """Return the memo after a change of weights at (rows, columns); None if not possible."""
        # Each weight costs a row of the inputs: for many weights, the whole layer is cheaper.
        if self.inputs is None or len(rows) > 8 * max(len(self.inputs), len(self.outputs)):
            return None
        outputs = self.outputs.clone()
        outputs.index_add_(0, rows, self.inputs[columns].mul_(change[:, None]))
        return Memo(outputs, self.shape, self.inputs)


@dataclass
class Piece:
    """Samples evaluated in one forward pass, with the cached calls for the current weights."""

    samples: Samples
    memos: dict[str, Memo] = field(default_factory=dict)
    """By layer name, in the order of the calls."""


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
        Cache the layers' inputs and outputs, (in + out) numbers per sample and layer.
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
        start, stop = parallel.share(0, len(samples))
        self.pieces = [
            Piece(samples[i : min(i + batch_size, stop)]) for i in range(start, stop, batch_size)
        ]
        self.remember = remember
        self._pending: list[dict[str, Memo]] = []

    def measure(self) -> float:
        """Evaluate the loss from scratch and refresh the cache."""
        self._pending, total = [], 0.0
        for piece in self.pieces:
            piece.memos = {}
            total += self._run(piece, {}, piece.memos)
        return self._mean(total)

    def trial(self, changes: Sequence[tuple[Layer, Tensor, Tensor]]) -> float:
        """Return the loss after some weights have changed; they must have been written already.

        :meth:`commit` keeps the trial's outputs in the cache; otherwise they are discarded.

        Parameters
        ----------
        changes : sequence of (Layer, Tensor, Tensor)
            Layers, flat indices of their weights, and the changes of these, shape (m,).
        """
        if not self.remember:
            return self.measure()
        self._pending, total = [], 0.0
        changed: dict[str, list[tuple[Layer, Tensor, Tensor]]] = {}
        for change in changes:
            changed.setdefault(change[0].name, []).append(change)
        for piece in self.pieces:
            order = list(piece.memos)
            first = min(order.index(name) for name in changed)
            own = changed[order[first]]
            layer, index = own[0][0], torch.cat([index for _, index, _ in own])
            difference = torch.cat([difference for _, _, difference in own])
            memo = piece.memos[layer.name].changed(*layer.unravel(index), difference)
            fresh = {} if memo is None else {layer.name: memo}
            known = {name: piece.memos[name] for name in order[:first]} | fresh
            total += self._run(piece, known, fresh)
            self._pending.append(fresh)
        loss = self._mean(total)
        return loss if self.remember else self.measure()

    def commit(self) -> None:
        """Store the outputs of the last trial in the cache."""
        for piece, fresh in zip(self.pieces, self._pending, strict=False):
            piece.memos.update(fresh)
        self._pending = []

    def _mean(self, total: float) -> float:
        """Return the mean loss over all processes; all of them cache, or none does."""
        total, uncached = parallel.all_reduced(total, float(not self.remember))
        self.remember = not uncached
        return total / self.count

    @torch.no_grad()
    def _run(self, piece: Piece, known: dict[str, Memo], fresh: dict[str, Memo]) -> float:
        """Return a piece's total loss; ``known`` calls are not computed, others are cached."""
        returned: list[tuple[Tensor, int]] = []
        with ExitStack() as stack:
            for layer in self.layers:
                memo = known.get(layer.name)
                forward = self._recorder(layer, fresh, returned) if memo is None else _cached(memo)
                stack.enter_context(replaced_forward(layer.module, forward))
            outputs = self.objective.run(self.model, piece.samples.inputs)
        # An activation that works in place would change the cached outputs.
        if any(tensor._version != version for tensor, version in returned):
            self.remember = False
        return float(self.objective.total(outputs, piece.samples.targets))

    def _recorder(
        self, layer: Layer, fresh: dict[str, Memo], returned: list[tuple[Tensor, int]]
    ) -> Callable[..., Tensor]:
        compute = layer.module.forward

        def forward(*args: Any, **named: Any) -> Tensor:
            outputs = compute(*args, **named)
            returned.append((outputs, outputs._version))
            if layer.name in fresh:
                # A layer that runs twice has no single output to cache.
                self.remember = False
            if self.remember:
                inputs = args[0] if args else next(iter(named.values()))
                fresh[layer.name] = Memo.of(layer.kind, inputs, outputs)
            return outputs

        return forward


def _cached(memo: Memo) -> Callable[..., Tensor]:
    return lambda *args, **named: memo.result()
