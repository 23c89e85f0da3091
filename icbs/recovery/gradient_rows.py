"""Per-sample gradients of all layers as the rows of a matrix that is never formed.

A row is the gradient of the loss of one sample, or the part of it from a run of consecutive
positions, which gives more rows for few, long sequences. The rows of a sample add up to its
gradient. Only the entries of kept weights count, and optionally those of the layers' biases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from icbs.curvature.hooks import Sink, hooked
from icbs.curvature.layer_io import Call, Trace
from icbs.curvature.means import check_finite
from icbs.data.objective import Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples
from icbs.model.layer import Layer
from icbs.recovery.teacher import Teacher

CHUNK = 1 << 24
"""Maximum number of entries of the rows that are computed at a time."""


@dataclass
class Direction:
    """A change of the weights, or a gradient, by layer name."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    """Shape (out, in)."""
    biases: dict[str, Tensor] = field(default_factory=dict)
    """Shape (out,); of layers whose bias takes part."""

    def scaled(self, factor: float) -> Direction:
        """Return the direction times a number."""
        return Direction(
            {name: value * factor for name, value in self.weights.items()},
            {name: value * factor for name, value in self.biases.items()},
        )

    def add_(self, other: Direction) -> Direction:
        """Add a direction with the same entries in place."""
        for name, value in other.weights.items():
            self.weights[name] += value
        for name, value in other.biases.items():
            self.biases[name] += value
        return self

    def dot(self, other: Direction) -> float:
        """Return the inner product with a direction with the same entries."""
        pairs = [(self.weights[n], other.weights[n]) for n in self.weights]
        pairs += [(self.biases[n], other.biases[n]) for n in self.biases]
        return sum(float((a.double() * b.double()).sum()) for a, b in pairs)


class GradientRows:
    """Rows G, shape (R, p): gradients of the kept weights at the current weights.

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

    def __len__(self) -> int:
        return len(self.samples) * self.runs

    @property
    def count(self) -> int:
        """Number of samples N."""
        return len(self.samples)

    def gram(self) -> Tensor:
        """Return ``S = G Gᵀ``, shape (R, R), in float64."""
        device = self.layers[0].dense.device
        total = torch.zeros(len(self), len(self), dtype=torch.float64, device=device)
        for group in self._groups():
            calls: dict[str, dict[int, list[Call]]] = {layer.name: {} for layer in group}

            def store(layer: Layer, call: Call, calls: dict = calls) -> None:
                if layer.name in calls:
                    calls[layer.name].setdefault(call.start, []).append(call)

            self._run(store)
            for layer in group:
                own = calls.pop(layer.name)
                for block in self._blocks(layer, own):
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
                    moved = _outputs(trace, matrix)
                    total[rows] += (moved * trace.deltas).sum(dim=(1, 2)).double()
                if (bias := direction.biases.get(layer.name)) is not None:
                    total[rows] += (trace.deltas @ bias).sum(dim=1).double()

        self._run(add)
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

        self._run(add)
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

    def squares(self) -> dict[str, Tensor]:
        """Return the mean over samples of the squared gradients, each position as a row.

        Returns
        -------
        dict of str to Tensor, shape (out, in)
            By layer name, also of pruned weights.
        """
        found = {}
        for layer in self.layers:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            found[layer.name] = torch.zeros_like(layer.dense, dtype=wide)

        def add(layer: Layer, call: Call) -> None:
            for trace in call.parts():
                squared = Trace(trace.inputs.square(), trace.deltas.square(), trace.groups)
                found[layer.name] += squared.gradient_sum() / self.count

        self._run(add)
        return found

    def _run(self, sink: Sink) -> None:
        """Take one forward and backward pass over the samples."""
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
            split = trace if self.runs == 1 else _split(trace, self.runs)
            yield slice(first, first + len(split.inputs)), split
            first += len(split.inputs)

    def _groups(self) -> Iterable[list[Layer]]:
        """Divide the layers so that the calls of a group fit the memory."""
        sizes = dict.fromkeys((layer.name for layer in self.layers), 0)

        def measure(layer: Layer, call: Call) -> None:
            sizes[layer.name] += (call.inputs.nbytes + call.deltas.nbytes) // call.samples

        whole, self.samples = self.samples, self.samples[:1]
        try:
            self._run(measure)
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

    def _blocks(self, layer: Layer, calls: Mapping[int, Sequence[Call]]) -> Iterator[Tensor]:
        """Yield columns of G, some outputs of a layer at a time, shape (R, any), in float64."""
        traces = [
            (rows, trace)
            for own in calls.values()
            for call in own
            for rows, trace in self._traces(call)
        ]
        kept = ~layer.pruned.view(layer.shape)
        outputs, inputs = layer.shape
        step = max(1, CHUNK // (len(self) * inputs))
        wide = torch.promote_types(layer.dense.dtype, torch.float32)
        for first in range(0, outputs, step):
            chosen = kept[first : first + step]
            block = layer.dense.new_zeros(len(self), int(chosen.sum()), dtype=wide)
            for rows, trace in traces:
                block[rows] += _gradients(trace, first, chosen)
            yield block
        if layer.name in self.with_bias:
            block = layer.dense.new_zeros(len(self), outputs, dtype=wide)
            for rows, trace in traces:
                block[rows] += trace.deltas.sum(dim=1)
            yield block


def _has_bias(layer: Layer) -> bool:
    """Whether a layer has a bias that may move."""
    bias = getattr(layer.module, "bias", None)
    return isinstance(bias, Tensor) and bias.requires_grad


def _split(trace: Trace, runs: int) -> Trace:
    """Divide each sample into runs of consecutive positions, padded with zeros at the end."""
    count, places, _ = trace.deltas.shape
    length = math.ceil(places / runs)
    missing = runs * length - places

    def divided(values: Tensor) -> Tensor:
        padded = nn.functional.pad(values, (0, 0, 0, missing)) if missing else values
        return padded.reshape(count * runs, length, values.shape[2])

    return Trace(divided(trace.inputs), divided(trace.deltas), trace.groups)


def _gradients(trace: Trace, first: int, chosen: Tensor) -> Tensor:
    """Rows of the weights of some outputs that are chosen, shape (N, chosen)."""
    if trace.groups > 1 or trace.inputs.shape[1] == 1:
        rows, columns = chosen.nonzero(as_tuple=True)
        return trace.columns(rows + first, columns)
    deltas = trace.deltas[:, :, first : first + len(chosen)]
    return (deltas.transpose(1, 2) @ trace.inputs)[:, chosen]


def _outputs(trace: Trace, matrix: Tensor) -> Tensor:
    """Compute a layer's outputs with another matrix, shape (N, T, out)."""
    matrix = matrix.to(trace.inputs)
    if trace.groups == 1:
        return trace.inputs @ matrix.T
    features = trace.inputs.unflatten(2, (trace.groups, -1))
    split = matrix.unflatten(0, (trace.groups, -1))
    return torch.einsum("ntgc,goc->ntgo", features, split).flatten(2)
