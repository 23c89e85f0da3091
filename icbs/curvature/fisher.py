"""Fisher information: the second moment of the per-sample gradients, as a low-rank factor.

``C = AᵀA/N`` with ``A = w⁰ ∘ G``, where G has one gradient per sample. With targets drawn
from the model's distribution it is the Fisher information, with the targets of the data the
empirical Fisher (Kunstner et al. 2019, arXiv 1905.12558).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from icbs import parallel
from icbs.curvature.layer_io import Call, Trace, joined
from icbs.curvature.source import Batch, Collector, CurvatureSource, PassSizes, QuadraticModel
from icbs.data.positions import Drawn
from icbs.model.gates import Gates, Part, WidePart
from icbs.model.layer import Layer


class Fisher(CurvatureSource):
    """Second moment of per-sample gradients.

    Parameters
    ----------
    samples : int
        Samples N in a block's curvature, which bounds its rank.
    drawn : bool, default True
        Draw the targets from the model's distribution; otherwise use those of the data.
    tokens : bool, default False
        Use random positions as rows, each as one sample, instead of whole samples.
    """

    uses_rows = True

    def __init__(self, samples: int, *, drawn: bool = True, tokens: bool = False) -> None:
        self.samples, self.draws_targets, self.tokens = samples, drawn, tokens
        self.selects_midway = not tokens

    def check(self, batch: Batch) -> None:
        """Warn of targets of the data that are probabilities."""
        if not self.draws_targets:
            batch.objective.warn_of_soft_targets(batch.samples.targets)

    def collectors(self, batch: Batch) -> list[Collector]:
        """Begin a pass: gather columns of blocks selected midway, or store calls for later."""
        drawn = self.draws_targets
        if self.tokens:
            where = Drawn.of(batch.samples, self.samples, batch.generator)
            return [_Tokens(batch, where, drawn=drawn)]
        first = batch.select_after or 0
        stop = min(first + self.samples, len(batch))
        if batch.select_after is None:
            return [_Held(batch, stop, drawn=drawn)]
        return [_Gathered(batch, first, stop, drawn=drawn)]

    def memory(self, sizes: PassSizes) -> dict[str, int]:
        """Estimate the bytes of the factors, and of the stored calls."""
        rows = self.samples if self.tokens else min(self.samples, sizes.samples)
        # Three copies: gathered columns, scaled columns, and the factor in a problem.
        found = {"block columns": 3 * sizes.itemsize * rows * sum(sizes.gates)}
        if self.tokens:
            widths = sum(x.shape[0] + x.shape[1] * x.kind.groups for x in sizes.layers)
            found["held for the curvature"] = rows * widths * sizes.itemsize
        elif not sizes.midway:
            found["held for the curvature"] = rows * sizes.held
        return found


class _Rows(Collector):
    """Base class of the Fisher collectors."""

    def __init__(self, batch: Batch, *, drawn: bool) -> None:
        self.batch, self.draws_targets = batch, drawn
        self.dispersion = 1.0

    def finish(self) -> None:
        """Estimate the dispersion of the loss."""
        batch = self.batch
        self.dispersion = batch.objective.dispersion(
            batch.loss, batch.samples.targets, drawn=self.draws_targets
        )


class _Gathered(_Rows):
    """Columns of gates that are selected midway, for the samples after the selection.

    Parameters
    ----------
    start, stop : int
        Samples that have a row.
    """

    def __init__(self, batch: Batch, start: int, stop: int, *, drawn: bool) -> None:
        super().__init__(batch, drawn=drawn)
        self.start, self.stop = start, stop
        self.rows: dict[int, Tensor] = {}
        self.blocks: list[Gates] = []

    def span(self) -> tuple[int, int]:
        """Return the samples that have a row."""
        return self.start, self.stop

    def select(self, blocks: Mapping[str, Gates]) -> None:
        """Allocate the rows of each block."""
        self.blocks = list(blocks.values())
        for gates in self.blocks:
            dense = gates.parts[0].layer.dense
            wide = torch.promote_types(dense.dtype, torch.float32)
            shape = self.stop - self.start, len(gates)
            self.rows[id(gates)] = dense.new_zeros(shape, dtype=wide)

    def add(self, layer: Layer, call: Call) -> None:
        """Write the rows of a call's samples."""
        first = call.start - self.start
        for gates in self.blocks:
            for number, part in gates.of_layer(layer):
                if isinstance(part, WidePart):
                    rows = call.gated(part, len(gates)) / (self.stop - self.start) ** 0.5
                    self.rows[id(gates)][first : first + call.samples] += rows
                    continue
                columns = call.columns_of(part)
                scaled = columns * _scale(part.weights, columns, self.stop - self.start)
                gates.add_columns(
                    number, scaled, self.rows[id(gates)][first : first + call.samples]
                )

    def finish(self) -> None:
        """Combine the rows of all processes."""
        super().finish()
        parallel.all_reduce_(*self.rows.values())

    def model(self, gates: Gates) -> QuadraticModel:
        """Return the model of a selected block.

        Raises
        ------
        ValueError
            If the block is not among those that were selected.
        """
        if id(gates) not in self.rows:
            raise ValueError(f"the columns of other weights of {gates.name!r} were gathered")
        return QuadraticModel(factor=self.rows[id(gates)], dispersion=self.dispersion)


class _Held(_Rows):
    """All calls of some samples, for columns of blocks that are selected later.

    Parameters
    ----------
    count : int
        Number of samples N.
    """

    def __init__(self, batch: Batch, count: int, *, drawn: bool) -> None:
        super().__init__(batch, drawn=drawn)
        self.count = count
        self.calls: dict[str, dict[int, list[Call | Trace]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def span(self) -> tuple[int, int]:
        """Return the first samples of the pass."""
        return 0, self.count

    def add(self, layer: Layer, call: Call) -> None:
        """Store a call."""
        self.calls[layer.name][call.start].append(call)

    def model(self, gates: Gates) -> QuadraticModel:
        """Return the model of any block."""
        factor: Tensor | None = None
        for number, part in enumerate(gates.parts):
            layer = part.layer
            if isinstance(part, WidePart):
                rows = self._gated(part, len(gates)) / self._count(layer) ** 0.5
                factor = rows if factor is None else factor + rows
                continue
            columns = self._columns(part)
            columns = columns * _scale(part.weights, columns, self._count(layer))
            if part.gate is None and len(gates.parts) == 1:
                factor = columns
            else:
                if factor is None:
                    factor = columns.new_zeros(len(columns), len(gates))
                gates.add_columns(number, columns, factor)
        return QuadraticModel(factor=factor, dispersion=self.dispersion)

    def _gated(self, part: WidePart, gates: int) -> Tensor:
        """Per-sample gradients of gates, of all processes, shape (N, gates)."""
        return self._summed(part.layer, gates, lambda call: call.gated(part, gates))

    def _columns(self, part: Part) -> Tensor:
        """Per-sample gradients of a part's weights, of all processes, shape (N, m)."""
        return self._summed(part.layer, len(part.index), lambda call: call.columns(*part.places))

    def _summed(self, layer: Layer, width: int, of: Callable[[Call | Trace], Tensor]) -> Tensor:
        """Sum rows over the calls of each sample, of all processes.

        A layer without a call for some sample (an expert) has a row of zeros there, so that row i
        belongs to the same sample in all layers.
        """
        dense = layer.dense
        rows = dense.new_zeros(
            self.count, width, dtype=torch.promote_types(dense.dtype, torch.float32)
        )
        for start, calls in self.calls[layer.name].items():
            first = self._row(start)
            for call in calls:
                columns = of(call)
                rows[first : first + len(columns)] += columns
        parallel.all_reduce_(rows)
        return rows

    def _row(self, start: int) -> int:
        """Return the row of sample ``start``."""
        return start

    def _count(self, layer: Layer) -> float:
        return self.count


class _Tokens(_Held):
    """Randomly drawn positions, each treated as one sample.

    Parameters
    ----------
    where : Drawn
        The positions.
    """

    def __init__(self, batch: Batch, where: Drawn, *, drawn: bool) -> None:
        super().__init__(batch, len(where), drawn=drawn)
        self.where = where
        self.places: dict[str, int] = {}

    def span(self) -> tuple[int, int]:
        """Return all samples of the pass."""
        return 0, len(self.batch)

    def add(self, layer: Layer, call: Call) -> None:
        """Store the drawn positions of a call."""
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


def _scale(weights: Tensor, columns: Tensor, count: float) -> Tensor:
    """Factor that turns gradients of weights into rows of A/√N."""
    return weights.to(columns.dtype) / count**0.5
