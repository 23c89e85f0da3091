"""The output error of a layer as a quadratic model of its gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from icbs import parallel
from icbs.curvature.layer_io import Call
from icbs.curvature.source import Batch, Collector, CurvatureSource, PassSizes, QuadraticModel
from icbs.data.positions import counted_positions
from icbs.model.gates import Gates, Part
from icbs.model.layer import Layer


class LayerError(CurvatureSource):
    """``½‖(W - W⁰)X‖²/T``, the error of a layer's output, expanded about the current mask.

    The objective of Wanda and SparseGPT. It needs neither labels nor gradients, and its minimum is
    the dense layer. The problems are dense, with n² numbers.

    Parameters
    ----------
    weight : float, default 1
        ρ, the weight of the error in a sum with another source; see
        :class:`icbs.curvature.sum.Sum`.
    """

    models_loss = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def collectors(self, batch: Batch) -> list[Collector]:
        """Return a collector of the second moments of all layers' inputs."""
        moments = InputMoments(batch.layers, counted_positions(batch.samples))
        return [_Errors(batch, moments, self.weight)]

    def memory(self, sizes: PassSizes) -> dict[str, int]:
        """Estimate the bytes of the moments, and of the dense problems of all layers."""
        products = sum(layer.kind.groups * layer.shape[1] ** 2 for layer in sizes.layers)
        return {
            "products of inputs": sizes.itemsize * products,
            "block columns": 8 * sum(n**2 for n in sizes.gates),
        }


class InputMoments:
    """Second moments ``H = XᵀX/T`` of every layer's inputs, gathered during a pass.

    Stores in² numbers for each layer.

    Parameters
    ----------
    layers : sequence of Layer
    counted : Tensor of bool, shape (N, T), optional
        Positions that are not padding.
    """

    def __init__(self, layers: Sequence[Layer], counted: Tensor | None) -> None:
        self.counted = counted
        self.totals: dict[str, Tensor] = {}
        self.positions = {layer.name: 0 for layer in layers}
        for layer in layers:
            width = layer.shape[1]
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            shape = (layer.kind.groups, width, width)
            self.totals[layer.name] = layer.dense.new_zeros(shape, dtype=wide)

    def add(self, layer: Layer, call: Call) -> None:
        """Add a call's samples."""
        start, total = call.start, self.totals[layer.name]
        for trace in call.parts():
            count, places, _ = trace.inputs.shape
            features = trace.inputs.flatten(0, 1).to(total.dtype)
            if self.counted is not None and places == self.counted.shape[1]:
                features = features[self.counted[start : start + count].flatten()]
            split = features.unflatten(1, (layer.kind.groups, -1)).transpose(0, 1)
            total.baddbmm_(split.transpose(1, 2), split)
            self.positions[layer.name] += len(features)
            start += count

    def reduce(self) -> None:
        """Sum over all processes."""
        parallel.all_reduce_(*self.totals.values())
        counts = parallel.all_reduced(*self.positions.values())
        self.positions = dict(zip(self.positions, map(int, counts), strict=True))

    def mean(self, layer: Layer) -> Tensor:
        """Return H, shape (groups, in, in)."""
        return self.totals[layer.name] / max(1, self.positions[layer.name])


class _Errors(Collector):
    """Output errors of all layers, on all samples of a pass."""

    def __init__(self, batch: Batch, moments: InputMoments, weight: float) -> None:
        self.count, self.moments, self.weight = len(batch), moments, weight

    def span(self) -> tuple[int, int]:
        """Return all samples of the pass."""
        return 0, self.count

    def add(self, layer: Layer, call: Call) -> None:
        """Add a call's samples to the moments."""
        self.moments.add(layer, call)

    def finish(self) -> None:
        """Sum over all processes."""
        self.moments.reduce()

    def model(self, gates: Gates) -> QuadraticModel:
        """Expand the output errors of a block's layers about their masks."""
        gradients, matrix = [], None
        for part in gates.parts:
            slope, own = expand(part, self.moments.mean(part.layer))
            gradients.append(slope)
            if part.gate is None and len(gates.parts) == 1:
                matrix = own
                continue
            if matrix is None:
                matrix = own.new_zeros(len(gates), len(gates))
            gate = part.gate
            if gate is None:
                gate = part.first + torch.arange(len(part.index), device=own.device)
            rows = own.new_zeros(len(gates), len(own)).index_add_(0, gate, own)
            matrix.index_add_(1, gate, rows)
        return QuadraticModel(
            matrix=matrix, gradients=gradients, models_loss=False, weight=self.weight
        )


def expand(part: Part, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Expand ``½‖(W - W⁰)X‖²/T`` about the layer's current mask.

    The gradient of an output's error is ``H(w - w⁰)``, summed over all of its weights, including
    those outside of the block; the curvature of two gates of one output is ``w⁰_i H_ij w⁰_j``,
    and weights of different outputs don't interact.

    Parameters
    ----------
    part : Part
        Weights of the layer, m of them.
    moments : Tensor, shape (groups, in, in)
        H, the second moments of the inputs of each group of outputs.

    Returns
    -------
    gradient : Tensor, shape (m,)
        With respect to the weights; 0 for outputs without pruned weights.
    matrix : Tensor, shape (m, m)
        Second derivatives with respect to a gate on each weight.
    """
    layer = part.layer
    rows, columns = part.places
    outputs, row = torch.unique(rows, return_inverse=True)
    pruned = layer.pruned.view(layer.shape)[outputs]
    change = torch.where(pruned, -layer.dense[outputs], 0).to(moments.dtype)
    group = rows // (layer.shape[0] // len(moments))
    dense = layer.dense[rows, columns].to(moments.dtype)
    size = len(part.index)
    gradient, matrix = torch.zeros_like(dense), moments.new_zeros(size, size)
    for number in torch.unique(group).tolist():
        inside = (group == number).nonzero().squeeze(1)
        at = columns[inside]
        gradient[inside] = (change @ moments[number])[row[inside], at]
        same = rows[inside][:, None] == rows[inside]
        pair = moments[number][at[:, None], at] * same * dense[inside] * dense[inside][:, None]
        matrix[inside[:, None], inside] = pair
    # Float32 products are not exactly symmetric.
    return gradient, (matrix + matrix.T) / 2
