"""Per-sample gradients of all layers as the rows of a matrix that is never formed.

A row is the gradient of the loss of one sample, or the part of it from a run of consecutive
positions, which gives more rows for few, long sequences. The rows of a sample add up to its
gradient. Only the entries of kept weights count, and optionally those of the layers' biases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from icbs.curvature.hooks import Sink, hooked
from icbs.curvature.layer_io import Call, Trace
from icbs.curvature.means import check_finite
from icbs.data.objective import Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples
from icbs.model.layer import Layer
from icbs.recovery.direction import Direction
from icbs.recovery.row_traces import outputs_of, split, weight_gradients
from icbs.recovery.teacher import Teacher

CHUNK = 1 << 24
"""Maximum number of entries of the rows that are computed at a time."""
_Traces = list[tuple[slice, Trace]]
"""Traces of a layer with the ranges of their rows."""


class _FullError(Exception):
    """Raised in a pass whose calls don't fit the memory."""


class GradientRows:
    """Rows G, shape (R, p): gradients of the kept weights at the current weights.

    Each method runs the model on all samples, unless :meth:`hold` has stored what they need.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    layers : sequence of Layer
        Their masks select the entries.
    objective : Objective
    samples : Samples
    batch_size : int
        Samples in one forward and backward pass; 1 if some layers see some samples only.
    run : int, optional
        Positions of a row; None for a whole sample. Samples without positions are one row.
    biases : bool, default False
        Whether biases of the layers take part.
    memory : int
        Bytes for the inputs and output gradients of layers; layers that exceed it need further
        forward and backward passes in :meth:`gram`.
    teacher : Teacher, optional
        Take the gradients of the divergence from the dense model instead of the loss.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        objective: Objective,
        samples: Samples,
        *,
        batch_size: int,
        run: int | None = None,
        biases: bool = False,
        memory: int = 1 << 31,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.layers = model, list(layers)
        self.objective, self.samples = objective, samples
        self.batch_size, self.memory = batch_size, memory
        self.teacher = teacher
        self.with_bias = {x.name for x in layers if biases and _has_bias(x)}
        counted = counted_positions(samples)
        positions = 1 if counted is None else counted.shape[1]
        self.runs = 1 if run is None else math.ceil(positions / run)
        """Rows of a sample."""
        self.loss = math.nan
        """Mean loss of the samples in the latest pass."""
        self._held: list[tuple[Layer, Call]] | None = None

    def __len__(self) -> int:
        return len(self.samples) * self.runs

    @property
    def count(self) -> int:
        """Number of samples N."""
        return len(self.samples)

    def hold(self, most: int | None = None) -> bool:
        """Store the inputs and output gradients of all layers, if they fit the memory.

        No method then runs the model again, and the rows stay those of the current weights.

        Parameters
        ----------
        most : int, optional
            Bytes that may be stored; by default ``memory``.

        Returns
        -------
        bool
            Whether they fit.
        """
        held: list[tuple[Layer, Call]] = []
        seen: dict[int, int] = {}
        limit = self.memory if most is None else most

        def store(layer: Layer, call: Call) -> None:
            for tensor in (call.inputs, call.deltas):  # layers may share their inputs
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            if sum(seen.values()) > limit:
                raise _FullError
            held.append((layer, call))

        try:
            self.run(store)
        except _FullError:
            return False
        self._held = held
        return True

    def gram(self) -> Tensor:
        """Return ``S = G Gᵀ``, shape (R, R), in float64."""
        device = self.layers[0].dense.device
        total = torch.zeros(len(self), len(self), dtype=torch.float64, device=device)
        for layer, traces in self._stored():
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
            for rows, trace in self._traces(call):
                if (matrix := direction.weights.get(layer.name)) is not None:
                    moved = outputs_of(trace, matrix)
                    total[rows] += (moved * trace.deltas).sum(dim=(1, 2)).double()
                if (bias := direction.biases.get(layer.name)) is not None:
                    total[rows] += (trace.deltas @ bias).sum(dim=1).double()

        self.run(add)
        return total

    def combine(self, coefficients: Tensor, *, masked: bool = True) -> Direction:
        """Return ``Gᵀα``, the gradient of a weighted sum of the rows, by one backward pass.

        Parameters
        ----------
        coefficients : Tensor, shape (R,)
        masked : bool, default True
            Whether entries of pruned weights are 0; otherwise they are computed as well.
        """
        found = Direction()
        for layer in self.layers:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            found.weights[layer.name] = torch.zeros_like(layer.dense, dtype=wide)
            if layer.name in self.with_bias:
                found.biases[layer.name] = layer.dense.new_zeros(layer.shape[0], dtype=wide)

        def add(layer: Layer, call: Call) -> None:
            for rows, trace in self._traces(call):
                factors = coefficients[rows].to(trace.deltas)[:, None, None]
                scaled = Trace(trace.inputs, trace.deltas * factors, trace.groups)
                found.weights[layer.name] += scaled.gradient_sum()
                if layer.name in self.with_bias:
                    found.biases[layer.name] += scaled.deltas.sum(dim=(0, 1))

        self.run(add)
        for layer in self.layers:
            matrix = found.weights[layer.name]
            check_finite(layer.name, matrix)
            if masked:
                matrix.masked_fill_(layer.pruned.view_as(matrix), 0)
        return found

    def mean(self, *, masked: bool = True) -> Direction:
        """Return the mean gradient of the samples' losses; see :meth:`combine`."""
        ones = torch.ones(len(self), dtype=torch.float64, device=self.layers[0].dense.device)
        return self.combine(ones / self.count, masked=masked)

    def squares(self, *, by_position: bool = True) -> dict[str, Tensor]:
        """Return the squared gradients, summed over rows and divided by the number of samples.

        Parameters
        ----------
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
                for trace in call.parts():
                    squared = Trace(trace.inputs.square(), trace.deltas.square(), trace.groups)
                    found[layer.name] += squared.gradient_sum() / self.count

            self.run(add)
            return found
        for layer, traces in self._stored():
            for first, chosen, block in self._blocks(layer, traces, masked=False):
                mean = block.square().sum(dim=0).view(chosen.shape) / self.count
                found[layer.name][first : first + len(chosen)] = mean
        return found

    def run(self, sink: Sink) -> None:
        """Take one forward and backward pass over the samples, or repeat its calls if held."""
        if self._held is not None:
            for layer, call in self._held:
                sink(layer, call)
            return
        loss = 0.0
        for first in range(0, self.count, self.batch_size):
            piece = self.samples[first : first + self.batch_size]
            with hooked(self.model, self.layers, len(piece), first) as hooks:
                outputs = self.objective.run(self.model, piece.inputs)
                if self.teacher is None:
                    total = self.objective.total(outputs, piece.targets)
                else:
                    taught = self.teacher.outputs(piece)
                    total = self.teacher.total(outputs, taught, piece.targets)
                loss += float(total.detach())
                hooks.send_back(total, sink)
        self.loss = loss / self.count

    def _traces(self, call: Call) -> Iterator[tuple[slice, Trace]]:
        """Yield traces whose samples are rows, with the range of these rows."""
        first = call.start * self.runs
        for trace in call.parts():
            divided = trace if self.runs == 1 else split(trace, self.runs)
            yield slice(first, first + len(divided.inputs)), divided
            first += len(divided.inputs)

    def _groups(self) -> Iterable[list[Layer]]:
        """Divide the layers so that the calls of a group fit the memory."""
        if self._held is not None:
            yield self.layers
            return
        sizes = dict.fromkeys((layer.name for layer in self.layers), 0)

        def measure(layer: Layer, call: Call) -> None:
            sizes[layer.name] += (call.inputs.nbytes + call.deltas.nbytes) // call.samples

        whole, self.samples = self.samples, self.samples[:1]
        try:
            self.run(measure)
        finally:
            self.samples = whole
        group: list[Layer] = []
        used = 0
        for layer in self.layers:
            size = sizes[layer.name] * self.count
            if group and used + size > self.memory:
                yield group
                group, used = [], 0
            group.append(layer)
            used += size
        if group:
            yield group

    def _stored(self) -> Iterator[tuple[Layer, _Traces]]:
        """Yield the traces of all rows, layer by layer; one pass for each group of layers."""
        for group in self._groups():
            calls: dict[str, list[Call]] = {layer.name: [] for layer in group}

            def store(layer: Layer, call: Call, calls: dict[str, list[Call]] = calls) -> None:
                if layer.name in calls:
                    calls[layer.name].append(call)

            self.run(store)
            for layer in group:
                own = calls.pop(layer.name)
                yield layer, [found for call in own for found in self._traces(call)]

    def _blocks(
        self, layer: Layer, traces: _Traces, *, masked: bool = True
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


def _has_bias(layer: Layer) -> bool:
    """Whether a layer has a bias that may move."""
    bias = getattr(layer.module, "bias", None)
    return isinstance(bias, Tensor) and bias.requires_grad
