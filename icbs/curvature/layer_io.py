"""Inputs and output gradients of a layer, from which its per-sample gradients are computed.

The per-sample gradient of a linear layer is an outer product of its input ``a`` and its output
gradient ``δ``: ``G[s, (r, c)] = Σ_t δ[s, t, r] · a[s, t, c]``. Only these two are stored; the
columns of a block are computed from them, and the matrix of N × (all weights) is never formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from icbs.model.gates import Part, WidePart
from icbs.model.kinds import Kind

MOST = 1 << 23
"""Maximum number of products computed at a time for samples with several positions."""


@dataclass
class Trace:
    """Inputs and output gradients of a layer, by sample."""

    inputs: Tensor
    """Features, shape (N, T, groups · in)."""
    deltas: Tensor
    """Gradient of each sample's loss with respect to the outputs, shape (N, T, out)."""
    groups: int = 1
    """Groups of the features; a row (output) only uses those of its group."""

    @property
    def width(self) -> int:
        """Number of features that a row uses: columns of the layer's matrix."""
        return self.inputs.shape[2] // self.groups

    def columns(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Per-sample gradients of the weights at (rows, columns), shape (N, b)."""
        inputs, deltas = self.inputs, self.deltas
        if self.groups > 1:
            columns = rows // (deltas.shape[2] // self.groups) * self.width + columns
        count, places, _ = deltas.shape
        if places == 1:
            return deltas[:, 0, rows] * inputs[:, 0, columns]
        found = torch.empty(count, len(rows), dtype=inputs.dtype, device=inputs.device)
        step = max(1, MOST // (count * places))
        # Positions last, so that the two series of each weight are contiguous rows.
        series, features = (t.transpose(1, 2).contiguous() for t in (deltas, inputs))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            left = series.index_select(1, rows[part])
            found[:, part] = left.mul_(features.index_select(1, columns[part])).sum(dim=2)
        return found

    def gradient_sum(self) -> Tensor:
        """Gradient summed over samples, shape (out, in)."""
        deltas, inputs = self.deltas.flatten(0, 1), self.inputs.flatten(0, 1)
        if self.groups == 1:
            return deltas.T @ inputs
        split = deltas.unflatten(1, (self.groups, -1)), inputs.unflatten(1, (self.groups, -1))
        return torch.einsum("tgr,tgc->grc", *split).flatten(0, 1)

    def gated(self, part: WidePart, gates: int) -> Tensor:
        """Gradients of each sample with respect to multiplicative gates, shape (N, gates).

        The gradient of a gate is ``Σ w G`` over its weights. If gates are whole inputs, it is
        ``Σ_t (δ_t W)_c a_tc`` summed over their columns c, and no G is formed.
        """
        layer, inputs, deltas = part.layer, self.inputs, self.deltas
        dense = layer.dense.to(inputs.dtype)
        found = inputs.new_zeros(len(inputs), gates)
        if part.columnwise:
            columns, gate = part.columns
            return found.index_add_(1, gate, (deltas @ dense * inputs).sum(dim=1)[:, columns])
        assert part.gate is not None
        step = max(1, MOST // dense.numel())
        for start in range(0, len(inputs), step):
            a = inputs[start : start + step].unflatten(2, (self.groups, -1))
            d = deltas[start : start + step].unflatten(2, (self.groups, -1))
            scaled = torch.einsum("ntgo,ntgc->ngoc", d, a).flatten(1, 2) * dense
            found[start : start + step].index_add_(1, part.gate, scaled.flatten(1)[:, part.index])
        return found

    def projected(self, left: Tensor, right: Tensor) -> Tensor:
        """Per-sample gradients G as ``Σ_rc left[r, p] G[r, c] right[c, p]``, shape (N, p).

        Parameters
        ----------
        left : Tensor, shape (out, p)
        right : Tensor, shape (groups · in, p)
            A row (output) only uses the features of its group.
        """
        features, deltas = (
            torch.einsum(
                "ntgf,gfp->ntgp",
                values.unflatten(2, (self.groups, -1)),
                probe.unflatten(0, (self.groups, -1)),
            )
            for values, probe in ((self.inputs, right), (self.deltas, left))
        )
        return (features * deltas).sum(dim=(1, 2))

    def squares(self, counted: Tensor | None = None) -> Tensor:
        """Sum of the squared features over samples and positions.

        Parameters
        ----------
        counted : Tensor of bool, shape (N, T), optional
            Positions that are not padding.

        Returns
        -------
        Tensor, shape (in,), or (out, in) where the layer has groups
        """
        features = self.inputs.flatten(0, 1)
        if counted is not None and counted.shape == self.inputs.shape[:2]:
            features = features[counted.flatten()]
        total = features.square().sum(dim=0)
        if self.groups == 1:
            return total
        return total.view(self.groups, -1).repeat_interleave(
            self.deltas.shape[2] // self.groups, dim=0
        )


@dataclass
class Call:
    """One call of a layer, in the module's shapes; unfolded a few samples at a time."""

    kind: Kind
    inputs: Tensor
    """First argument, detached."""
    deltas: Tensor
    """Gradient of the samples' total loss with respect to the output of the call."""
    samples: int
    """Number of samples N, which are consecutive in the first dimension."""
    start: int = 0
    """Index of the first sample in the batch."""
    _last: tuple[Part, Tensor] | None = field(default=None, init=False, repr=False)
    """Cache: the latest part whose columns were computed, and these columns."""

    def parts(self) -> Iterator[Trace]:
        """Yield traces of consecutive samples, as many at a time as the memory bound permits."""
        step = self.samples
        if not self.kind.pointwise:
            rows, columns = self.kind.matrix(self.kind.weight).shape
            places = self.deltas.numel() // rows
            step = max(1, MOST * self.samples // (places * columns * self.kind.groups))
        fold = len(self.inputs) // self.samples
        for start in range(0, self.samples, step):
            part = slice(start * fold, (start + step) * fold)
            inputs, deltas = self.inputs[part], self.deltas[part]
            count = len(inputs) // fold
            yield Trace(
                self.kind.features(inputs, deltas.shape, count),
                self.kind.positions(deltas, count),
                self.kind.groups,
            )

    def columns(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Per-sample gradients of the weights at (rows, columns), shape (N, b)."""
        return joined([trace.columns(rows, columns) for trace in self.parts()])

    def columns_of(self, part: Part) -> Tensor:
        """Columns of the weights of a part, shape (N, m); the latest result is cached."""
        if self._last is None or self._last[0] is not part:
            self._last = part, self.columns(*part.places)
        return self._last[1]

    def sum_of(self, part: Part) -> Tensor:
        """Gradients of the weights of a part, summed over samples, shape (m,)."""
        if isinstance(part, WidePart):
            return self.gradient_sum().flatten()[part.index]
        return self.columns_of(part).sum(dim=0)

    def gated(self, part: WidePart, gates: int) -> Tensor:
        """Gradients of each sample with respect to gates; see :meth:`Trace.gated`."""
        return joined([trace.gated(part, gates) for trace in self.parts()])

    def gradient_sum(self) -> Tensor:
        """Gradient summed over samples, shape (out, in)."""
        return reduce(torch.add, (trace.gradient_sum() for trace in self.parts()))

    def projected(self, left: Tensor, right: Tensor) -> Tensor:
        """Random projections of the per-sample gradients; see :meth:`Trace.projected`."""
        return joined([trace.projected(left, right) for trace in self.parts()])

    def squares(self, counted: Tensor | None = None) -> Tensor:
        """Sum of the squared features; see :meth:`Trace.squares`."""
        total, start = None, 0
        for trace in self.parts():
            count = len(trace.inputs)
            part = None if counted is None else counted[start : start + count]
            found = trace.squares(part)
            total = found if total is None else total + found
            start += count
        assert total is not None
        return total


def joined(parts: list[Tensor]) -> Tensor:
    """Concatenate without copying a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
