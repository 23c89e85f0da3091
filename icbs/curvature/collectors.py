"""What is collected from the calls of a pass: means of all weights, or rows of the chosen.

Every collector has methods that take ``(layer, call)``; a pass sends each call to one of
them as soon as its gradient is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from icbs import parallel
from icbs.curvature.hooks import Sink
from icbs.curvature.layer_io import Call, Trace, joined
from icbs.curvature.sources import Curvature, fisher
from icbs.data.positions import Drawn
from icbs.errors import DataError
from icbs.model.layer import Layer


class Means:
    """Gradients and squared inputs, summed over samples.

    Parameters
    ----------
    layers : sequence of Layer
    counted : Tensor of bool, shape (N, T), optional
        Positions that are no padding.
    """

    def __init__(self, layers: Sequence[Layer], counted: Tensor | None) -> None:
        self.counted = counted
        self.gradients: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        for layer in layers:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            shape = layer.shape if layer.kind.groups > 1 else layer.shape[1:]
            self.gradients[layer.name] = torch.zeros_like(layer.dense, dtype=wide)
            self.squares[layer.name] = layer.dense.new_zeros(shape, dtype=wide)

    def add(self, layer: Layer, call: Call) -> None:
        """Add a call's samples."""
        counted = self.counted
        if counted is not None:
            counted = counted[call.start : call.start + call.samples]
        self.gradients[layer.name] += call.gradient_sum()
        self.squares[layer.name] += call.squares(counted)

    def mean_gradients(self, count: int) -> dict[str, Tensor]:
        """Turn the sums over ``count`` samples, of all processes, into means, in place.

        Raises
        ------
        DataError
            If one is not finite.
        """
        parallel.all_reduce_(*self.gradients.values(), *self.squares.values())
        for name, gradient in self.gradients.items():
            check_finite(name, gradient)
            gradient /= count
        return self.gradients


class Held:
    """Every call of some samples, for columns that are chosen later.

    Parameters
    ----------
    count : int
        Samples N whose calls will come.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.calls: dict[str, dict[int, list[Call | Trace]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, layer: Layer, call: Call) -> None:
        """Hold a call."""
        self.calls[layer.name][call.start].append(call)

    def curvature(self, layer: Layer, index: Tensor) -> Curvature:
        """Fisher of a block."""
        rows, columns = layer.unravel(index)
        pieces = self.calls[layer.name]
        # A layer that the loss does not depend on has no calls, and no curvature.
        parts = [
            reduce(torch.add, [call.columns(rows, columns) for call in pieces[start]])
            for start in sorted(pieces)
        ] or [layer.dense.new_zeros(1, len(index))]
        return fisher(layer, index, self._everywhere(layer, joined(parts)), self._count(layer))

    def _everywhere(self, layer: Layer, own: Tensor) -> Tensor:
        """Put the rows of all processes together."""
        if not parallel.active():
            return own
        rows = own.new_zeros(self.count, own.shape[1])
        if self.calls[layer.name]:
            first = self._row(min(self.calls[layer.name]))
            rows[first : first + len(own)] = own
        parallel.all_reduce_(rows)
        return rows

    def _row(self, start: int) -> int:
        """Which row the samples from ``start`` on begin with."""
        return start

    def _count(self, layer: Layer) -> float:
        return self.count


class Tokens(Held):
    """Some positions of some samples, each as a sample of its own.

    Parameters
    ----------
    where : Drawn
        The positions.
    """

    def __init__(self, where: Drawn) -> None:
        super().__init__(len(where))
        self.where = where
        self.places: dict[str, int] = {}

    def add(self, layer: Layer, call: Call) -> None:
        """Hold what was drawn of a call."""
        start, inputs, deltas = call.start, [], []
        for trace in call.parts():
            places = trace.inputs.shape[1]
            at = self.where.within(start, len(trace.inputs), places)
            inputs.append(trace.inputs[at])
            deltas.append(trace.deltas[at])
            start += len(trace.inputs)
            self.places[layer.name] = places
        rows = Trace(joined(inputs)[:, None], joined(deltas)[:, None], layer.kind.groups)
        self.calls[layer.name][call.start].append(rows)

    def _row(self, start: int) -> int:
        return int((self.where.sample < start).sum())

    def _count(self, layer: Layer) -> float:
        # A sample's curvature is the sum over its positions.
        return 1 / self.where.weight(self.places.get(layer.name, 1))


class Gathered:
    """Gradients of the chosen blocks alone: a row a sample, and the sum over samples.

    Parameters
    ----------
    layers : sequence of Layer
    chosen : mapping of str to Tensor of int64
        Flat indices of a block by the layer's name.
    start, stop : int
        Samples of the batch that get a row.
    """

    def __init__(
        self, layers: Sequence[Layer], chosen: Mapping[str, Tensor], start: int, stop: int
    ) -> None:
        self.chosen = chosen
        self.start = start
        self.rows: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.places = {}
        for layer in layers:
            if (index := chosen.get(layer.name)) is None:
                continue
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            self.places[layer.name] = layer.unravel(index)
            self.rows[layer.name] = layer.dense.new_zeros(stop - start, len(index), dtype=wide)
            self.sums[layer.name] = layer.dense.new_zeros(len(index), dtype=wide)

    def add_rows(self, layer: Layer, call: Call) -> None:
        """Write the rows of a call's samples."""
        self._add(layer, call, row=True, total=False)

    def add_sums(self, layer: Layer, call: Call) -> None:
        """Add a call's samples to the sum."""
        self._add(layer, call, row=False, total=True)

    def add_both(self, layer: Layer, call: Call) -> None:
        """Do both at once."""
        self._add(layer, call, row=True, total=True)

    def _add(self, layer: Layer, call: Call, *, row: bool, total: bool) -> None:
        if layer.name not in self.places:
            return
        columns = call.columns(*self.places[layer.name])
        if row:
            first = call.start - self.start
            self.rows[layer.name][first : first + call.samples] += columns
        if total:
            self.sums[layer.name] += columns.sum(dim=0)

    def add_up(self) -> None:
        """Put the rows and sums of all processes together."""
        parallel.all_reduce_(*self.rows.values(), *self.sums.values())

    def curvature(self, layer: Layer, index: Tensor) -> Curvature:
        """Fisher of the chosen block; of no other.

        Raises
        ------
        ValueError
            If the index is not the one that was chosen.
        """
        chosen = self.chosen.get(layer.name)
        if chosen is None or not torch.equal(index, chosen):
            raise ValueError(f"the columns of other weights of {layer.name!r} were gathered")
        rows = self.rows[layer.name]
        return fisher(layer, index, rows.clone(), len(rows))


def both(first: Sink, second: Sink) -> Sink:
    """Send each call to two sinks."""

    def sink(layer: Layer, call: Call) -> None:
        first(layer, call)
        second(layer, call)

    return sink


def check_finite(name: str, gradient: Tensor) -> None:
    """Refuse a gradient that is not finite.

    Raises
    ------
    DataError
    """
    if not torch.isfinite(gradient).all():
        raise DataError(
            f"the gradient of layer {name!r} is NaN or infinite; check the loss and the "
            "data, or use a wider floating-point type"
        )
