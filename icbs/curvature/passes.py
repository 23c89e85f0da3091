"""One forward and backward pass over a batch for all layers.

The first samples of the batch select the blocks by their mean gradient. The samples after
that *selection point* give the gradient and the curvature of those blocks, a micro-batch at a
time, so that nothing is stored for other weights. Samples used for selection are not reused to
estimate the gain (selection bias). For a source that does not select midway, blocks are selected
at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from icbs import parallel
from icbs.curvature.hooks import Sink, hooked
from icbs.curvature.layer_io import Call
from icbs.curvature.means import BlockMeans, Means
from icbs.curvature.source import Batch, Collector, CurvatureSource, QuadraticModel
from icbs.data.objective import Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples
from icbs.model.gates import Gates
from icbs.model.layer import Layer


@dataclass
class Pass:
    """First- and second-order information on all layers, from one batch."""

    count: int
    """Samples of the pass."""
    gradients: dict[str, Tensor]
    """Mean gradient at the current (pruned) weights by layer name, shape (out, in); over the
    samples before the selection point if there is one."""
    squares: dict[str, Tensor]
    """Sum of the squared inputs of the same samples, shape (in,), or (out, in) with groups."""
    loss: float
    """Mean loss of the samples."""
    collectors: Sequence[Collector] = field(default=(), repr=False)
    """One for each quadratic model of a block; empty for a pass without curvature."""
    blocks: dict[str, Gates] = field(default_factory=dict)
    """The blocks that were selected, by name."""
    means: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)
    """Mean gradients over the samples after the selection point, by ``id`` of the block."""

    def gradient(self, gates: Gates) -> list[Tensor]:
        """Mean gradient of a block's weights over samples that did not select it.

        Returns
        -------
        list of Tensor, shape (m,)
            For each part of the gates.
        """
        found = self.means.get(id(gates))
        if found is not None:
            return found
        return [self.gradients[part.layer.name].flatten()[part.index] for part in gates.parts]

    def models(self, gates: Gates) -> list[QuadraticModel]:
        """Quadratic models of a block, which are to be summed, with their gradients.

        Raises
        ------
        ValueError
            If the pass has no curvature, or was taken for other blocks.
        """
        if not self.collectors:
            raise ValueError("this pass was taken without curvature")
        found = [collector.model(gates) for collector in self.collectors]
        # The gradient of the loss is added once, regardless of the number of its models.
        if (first := next((m for m in found if m.models_loss), None)) and first.gradients is None:
            first.gradients = self.gradient(gates)
        return found


Select = Callable[[Pass], Mapping[str, Gates]]


def take_pass(
    model: nn.Module,
    layers: Sequence[Layer],
    objective: Objective,
    samples: Samples,
    source: CurvatureSource | None,
    *,
    batch_size: int,
    generator: torch.Generator,
    select: Select | None = None,
    select_after: int | None = None,
) -> Pass:
    """Run one forward and backward pass for all layers.

    Parameters
    ----------
    model, layers, objective
        The model, in evaluation mode, its prunable layers and its loss.
    samples : Samples
        The batch.
    source : CurvatureSource, optional
        Source of the curvature; None for gradients only.
    batch_size : int
        Number of samples in one forward pass.
    generator : torch.Generator
        Random generator for sampled targets and positions.
    select : callable, optional
        ``select(pass_info)`` returns the blocks by name.
    select_after : int, optional
        Selection point, in samples; None for the end, so that the same samples select the
        blocks and give their gradient. Ignored for sources that do not select midway.

    Raises
    ------
    DataError
        If a gradient is not finite.
    """
    midway = select is not None and source is not None and source.selects_midway
    batch = Batch(model, layers, objective, samples, generator, select_after if midway else None)
    collectors = [] if source is None else source.collectors(batch)
    count, middle = len(batch), batch.select_after or len(batch)
    cuts = {0, middle, count, *(cut for collector in collectors for cut in collector.span())}
    edges = sorted(cuts)
    means, after = Means(layers, counted_positions(samples)), BlockMeans()
    pass_info: Pass | None = None
    for first, stop in pairwise(edges):
        if first == middle:
            assert select is not None
            pass_info = _passed(batch, means, middle)
            pass_info.blocks = dict(select(pass_info))
            after.select(pass_info.blocks)
            for collector in collectors:
                collector.select(pass_info.blocks)
        _run(batch, first, stop, batch_size, means if first < middle else after, collectors)
    batch.loss /= count
    for collector in collectors:
        collector.finish()
    if pass_info is None:
        pass_info = _passed(batch, means, count)
    else:
        pass_info.means = after.mean_gradients(count - middle)
    pass_info.count, pass_info.loss, pass_info.collectors = count, batch.loss, collectors
    if select is not None and batch.select_after is None:
        pass_info.blocks = dict(select(pass_info))
    return pass_info


def _passed(batch: Batch, means: Means, count: int) -> Pass:
    """Return the pass after ``count`` samples."""
    return Pass(count, means.mean_gradients(count), means.squares, batch.loss / count)


def _run(
    batch: Batch,
    start: int,
    stop: int,
    size: int,
    means: Means | BlockMeans,
    collectors: Sequence[Collector],
) -> None:
    """Run samples ``start … stop - 1``, ``size`` at a time, and pass calls to the collectors."""
    wanted = [c for c in collectors if c.span()[0] <= start and stop <= c.span()[1]]
    data = [means.add, *(c.add for c in wanted if not c.draws_targets)]
    drawn = [c.add for c in wanted if c.draws_targets]
    start, stop = parallel.share(start, stop)
    generator = parallel.rank_generator(batch.generator) if drawn else batch.generator
    loss = 0.0
    for first in range(start, stop, size):
        piece = batch.samples[first : min(first + size, stop)]
        loss += _run_piece(batch, first, piece, data, drawn, generator)
    batch.loss += parallel.all_reduced(loss)[0]


def _run_piece(
    batch: Batch,
    first: int,
    piece: Samples,
    data: Sequence[Sink],
    drawn: Sequence[Sink],
    generator: torch.Generator,
) -> float:
    """Run one piece of a batch; only the sinks keep data of it."""
    objective = batch.objective
    with hooked(batch.model, batch.layers, len(piece), first) as hooks:
        outputs = objective.run(batch.model, piece.inputs)
        total = objective.total(outputs, piece.targets)
        loss = float(total.detach())
        scale = hooks.find_scale(total) if objective.precision == "float16" else 1.0
        hooks.send_back(total, _to_all(data), again=bool(drawn), scale=scale)
        if drawn:
            targets = objective.sample_targets(outputs, piece.targets, generator)
            total = objective.total(outputs, targets)
            scale = hooks.find_scale(total) if objective.precision == "float16" else 1.0
            hooks.send_back(total, _to_all(drawn), scale=scale)
    return loss


def _to_all(sinks: Sequence[Sink]) -> Sink:
    """Send each call to several sinks."""

    def sink(layer: Layer, call: Call) -> None:
        for each in sinks:
            each(layer, call)

    return sink
