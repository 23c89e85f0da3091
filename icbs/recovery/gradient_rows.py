"""Per-sample gradients of all layers as the rows of a matrix that is never formed.

Only the entries of kept weights count, and optionally those of the layers' biases; see
:mod:`icbs.recovery.row_passes` for the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from icbs.curvature.layer_io import Call, Trace
from icbs.curvature.means import check_finite
from icbs.model.layer import Layer
from icbs.recovery.column_sampling import draw_columns
from icbs.recovery.direction import Direction
from icbs.recovery.row_passes import RowPasses, Traces
from icbs.recovery.row_traces import outputs_of, weight_gradients

CHUNK = 1 << 24
"""Maximum number of entries of the rows that are computed at a time."""


class GradientRows(RowPasses):
    """Rows G, shape (R, p): gradients of the kept weights at the current weights.

    Each method runs the model on all samples, unless :meth:`hold` has stored what they need.

    Parameters are those of :class:`icbs.recovery.row_passes.RowPasses`.
    """

    def gram(self) -> Tensor:
        """Return ``S = G Gᵀ``, shape (R, R), in float64."""
        device = self.layers[0].dense.device
        total = torch.zeros(len(self), len(self), dtype=torch.float64, device=device)
        for layer, traces in self.stored():
            for _, _, block in self._blocks(layer, traces):
                total += block @ block.T
            if layer.name in self.with_bias:
                block = self._zeros(layer, layer.shape[0])
                for rows, trace in traces:
                    block[rows] += trace.deltas.sum(dim=1)
                total += block @ block.T
        return total

    def along(self, direction: Direction) -> Tensor:
        """Return the inner product of each row with a direction, shape (R,), in float64.

        The direction may have entries at pruned weights: masks are not applied.
        """
        device = self.layers[0].dense.device
        total = torch.zeros(len(self), dtype=torch.float64, device=device)

        def add(layer: Layer, call: Call) -> None:
            for rows, trace in self.traces(call):
                total[rows] += _along(direction, layer, trace)

        self.run(add)
        return total

    def sampled_gram(
        self, columns: int, generator: torch.Generator, direction: Direction
    ) -> tuple[Tensor, Tensor]:
        """Estimate ``G Gᵀ`` from random columns, and compute :meth:`along`, in a single pass.

        For large models: the time of the exact product grows with the number of weights. The
        estimate is unbiased; see :mod:`icbs.recovery.column_sampling`.

        Parameters
        ----------
        columns : int
            Number of columns, about; all of them if there are not more.
        generator : torch.Generator
        direction : Direction
        """
        chosen = draw_columns(self, columns, generator)
        starts, width = {}, 0
        for layer in self.layers:
            starts[layer.name] = width
            width += len(chosen[layer.name].index)
            width += layer.shape[0] if layer.name in self.with_bias else 0
        sampled = self._zeros(self.layers[0], width)
        total = torch.zeros(len(self), dtype=torch.float64, device=sampled.device)

        def add(layer: Layer, call: Call) -> None:
            drawn, start = chosen[layer.name], starts[layer.name]
            stop = start + len(drawn.index)
            for rows, trace in self.traces(call):
                if len(drawn.index):
                    found = trace.columns(*layer.unravel(drawn.index))
                    sampled[rows, start:stop] += found * drawn.scale.to(found)
                if layer.name in self.with_bias:
                    sampled[rows, stop : stop + layer.shape[0]] += trace.deltas.sum(dim=1)
                total[rows] += _along(direction, layer, trace)

        self.run(add)
        return (sampled @ sampled.T).double(), total

    def combine(self, coefficients: Tensor, *, masked: bool = True) -> Direction:
        """Return ``Gᵀα``, the gradient of a weighted sum of the rows, by one backward pass.

        Parameters
        ----------
        coefficients : Tensor, shape (R,)
        masked : bool, default True
            Whether entries of pruned weights are 0; otherwise they are computed as well.
        """
        return self.combine_all(coefficients[None], masked=masked)[0]

    def combine_all(self, coefficients: Tensor, *, masked: bool = True) -> list[Direction]:
        """Return ``Gᵀα`` for several α, shape (k, R), by one backward pass; see :meth:`combine`."""
        found = [self._empty() for _ in coefficients]

        def add(layer: Layer, call: Call) -> None:
            for rows, trace in self.traces(call):
                for direction, alpha in zip(found, coefficients, strict=True):
                    factors = alpha[rows].to(trace.deltas)[:, None, None]
                    scaled = Trace(trace.inputs, trace.deltas * factors, trace.groups)
                    direction.weights[layer.name] += scaled.gradient_sum()
                    if layer.name in self.with_bias:
                        direction.biases[layer.name] += scaled.deltas.sum(dim=(0, 1))

        self.run(add)
        for direction in found:
            for layer in self.layers:
                matrix = direction.weights[layer.name]
                check_finite(layer.name, matrix)
                if masked:
                    matrix.masked_fill_(layer.pruned.view_as(matrix), 0)
        return found

    def _empty(self) -> Direction:
        """Return a direction of zeros."""
        found = Direction()
        for layer in self.layers:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            found.weights[layer.name] = torch.zeros_like(layer.dense, dtype=wide)
            if layer.name in self.with_bias:
                found.biases[layer.name] = layer.dense.new_zeros(layer.shape[0], dtype=wide)
        return found

    def mean(self, *, masked: bool = True) -> Direction:
        """Return the mean gradient of the samples' losses; see :meth:`combine`."""
        ones = torch.ones(len(self), dtype=torch.float64, device=self.layers[0].dense.device)
        return self.combine(ones / self.count, masked=masked)

    def squares(
        self, factors: Tensor | None = None, *, by_position: bool = True
    ) -> dict[str, Tensor]:
        """Return the squared gradients, summed over rows and divided by the number of samples.

        Parameters
        ----------
        factors : Tensor, shape (N,), optional
            Factors on the samples; only by position.
        by_position : bool, default True
            Take each position as a row, which is cheaper than whole rows.

        Returns
        -------
        dict of str to Tensor, shape (out, in)
            By layer name, also of pruned weights.
        """
        found = {}
        for layer in self.layers:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            found[layer.name] = torch.zeros_like(layer.dense, dtype=wide)

        if by_position:

            def add(layer: Layer, call: Call) -> None:
                first = call.start
                for trace in call.parts():
                    deltas = trace.deltas.square()
                    if factors is not None:
                        part = factors[first : first + len(deltas)].to(deltas)
                        deltas *= part[:, None, None]
                    first += len(deltas)
                    squared = Trace(trace.inputs.square(), deltas, trace.groups)
                    found[layer.name] += squared.gradient_sum() / self.count

            self.run(add)
            return found
        for layer, traces in self.stored():
            for first, chosen, block in self._blocks(layer, traces, masked=False):
                mean = block.square().sum(dim=0).view(chosen.shape) / self.count
                found[layer.name][first : first + len(chosen)] = mean
        return found

    def _blocks(
        self, layer: Layer, traces: Traces, *, masked: bool = True
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield columns of G, some outputs of a layer at a time.

        Yields
        ------
        first : int
            The first of the outputs.
        chosen : Tensor of bool, shape (outputs, in)
            Their weights that have a column: those that are kept, or all.
        block : Tensor, shape (R, number of columns)
        """
        kept = ~layer.pruned.view(layer.shape) | (not masked)
        step = max(1, CHUNK // (len(self) * layer.shape[1]))
        for first in range(0, layer.shape[0], step):
            chosen = kept[first : first + step]
            block = self._zeros(layer, int(chosen.sum()))
            for rows, trace in traces:
                block[rows] += weight_gradients(trace, first, chosen)
            yield first, chosen, block

    def _zeros(self, layer: Layer, columns: int) -> Tensor:
        wide = torch.promote_types(layer.dense.dtype, torch.float32)
        return layer.dense.new_zeros(len(self), columns, dtype=wide)


def _along(direction: Direction, layer: Layer, trace: Trace) -> Tensor:
    """Return the inner products of a layer's rows with a direction, shape (N,), float64."""
    total = torch.zeros(len(trace.inputs), dtype=torch.float64, device=trace.inputs.device)
    if (matrix := direction.weights.get(layer.name)) is not None:
        total += (outputs_of(trace, matrix) * trace.deltas).sum(dim=(1, 2))
    if (bias := direction.biases.get(layer.name)) is not None:
        total += (trace.deltas @ bias).sum(dim=1)
    return total
