"""Forward and backward passes that give the gradients of rows, and the calls that they hold.

A row is the gradient of the loss of one sample, or the part of it from a run of consecutive
positions, which gives more rows for few, long sequences. The rows of a sample add up to its
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from icbs.curvature.hooks import Sink, hooked
from icbs.curvature.layer_io import Call, Trace
from icbs.data.objective import Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples
from icbs.model.layer import Layer
from icbs.recovery.row_traces import split
from icbs.recovery.teacher import Teacher

Traces = list[tuple[slice, Trace]]
"""Traces of a layer with the ranges of their rows."""


class _FullError(Exception):
    """Raised in a pass whose calls don't fit the memory."""


class RowPasses:
    """Rows at the current weights of a model, or those where :meth:`hold` was called.

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

    @property
    def held(self) -> bool:
        """Whether :meth:`hold` has stored the calls."""
        return self._held is not None

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

    def run_few(self, count: int, sink: Sink) -> None:
        """Take a pass over the first samples only, or repeat all calls if they are held."""
        whole, self.samples = self.samples, self.samples[:count]
        try:
            self.run(sink)
        finally:
            self.samples = whole

    def traces(self, call: Call) -> Iterator[tuple[slice, Trace]]:
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

        self.run_few(1, measure)
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

    def stored(self) -> Iterator[tuple[Layer, Traces]]:
        """Yield the traces of all rows, layer by layer; one pass for each group of layers."""
        for group in self._groups():
            calls: dict[str, list[Call]] = {layer.name: [] for layer in group}

            def store(layer: Layer, call: Call, calls: dict[str, list[Call]] = calls) -> None:
                if layer.name in calls:
                    calls[layer.name].append(call)

            self.run(store)
            for layer in group:
                own = calls.pop(layer.name)
                yield layer, [found for call in own for found in self.traces(call)]


def _has_bias(layer: Layer) -> bool:
    """Whether a layer has a bias that may move."""
    bias = getattr(layer.module, "bias", None)
    return isinstance(bias, Tensor) and bias.requires_grad
