"""One forward and backward pass over a batch that serves every layer.

The first samples of the batch choose the blocks by their mean gradient. The samples after
that *selection point* give the gradient and the columns of those blocks alone, a micro-batch
at a time. So nothing is held, whatever the number of layers; and no sample that made a weight
look promising says what moving it is worth, which it would overrate. Passes that look at no
sequences as a whole (tokens), or do without a Fisher, choose at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from icbs import parallel
from icbs.config import DRAWN, CurvatureName, PrunerConfig, SampleName
from icbs.curvature.collectors import Gathered, Held, Means, Tokens, both, check_finite
from icbs.curvature.gram import Grams, with_distortion
from icbs.curvature.hooks import Sink, hooked
from icbs.curvature.sources import Curvature, Source, hessian
from icbs.data.objective import Objective
from icbs.data.positions import Drawn, counted_positions
from icbs.data.samples import Samples
from icbs.model.layer import Layer


@dataclass
class Pass:
    """First- and second-order information on every layer, from one batch."""

    count: int
    """Samples of the pass."""
    gradients: dict[str, Tensor]
    """Mean gradient at the current (pruned) weights by layer name, shape (out, in); of the
    samples before the selection point, where there is one."""
    squares: dict[str, Tensor]
    """Sum of the squared inputs of the same samples, shape (in,), or (out, in) with groups."""
    loss: float
    """Mean loss of the samples."""
    source: Source | None = field(default=None, repr=False)
    """What curvature comes from; None for a pass that gives none."""
    chosen: dict[str, Tensor] = field(default_factory=dict)
    """Flat indices of the blocks, by the names of the layers that have one."""
    means: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Mean gradient on the blocks, of the samples after the selection point."""
    dispersion: float = 1.0
    """φ of the loss, by which a Fisher is to be divided; see
    :meth:`icbs.data.objective.Objective.dispersion`."""

    def gradient(self, layer: Layer, index: Tensor) -> Tensor:
        """Mean gradient of a block's weights, shape (b,), over samples that did not choose it."""
        if layer.name in self.means:
            return self.means[layer.name]
        return self.gradients[layer.name][layer.unravel(index)]

    def curvature(self, layer: Layer, index: Tensor) -> Curvature:
        """Curvature of the block of a layer at given flat indices."""
        if self.source is None:
            raise ValueError("this pass was taken without curvature")
        return self.source(layer, index)


Choose = Callable[[Pass], dict[str, Tensor]]


def take_pass(
    model: nn.Module,
    layers: Sequence[Layer],
    objective: Objective,
    samples: Samples,
    *,
    curvature: CurvatureName | None,
    curvature_samples: int,
    batch_size: int,
    generator: torch.Generator,
    sample: SampleName = "sequence",
    choose: Choose | None = None,
    choose_after: int | None = None,
) -> Pass:
    """Run one forward and backward pass that serves all the layers.

    Parameters
    ----------
    model, layers, objective
        The model, in evaluation mode, its prunable layers and its loss.
    samples : Samples
        The batch.
    curvature : {"monte-carlo", "empirical", "exact", "gram", "fisher+gram"}, or None
        Fisher with labels drawn from the model, with the data's labels, or the Hessian; the
        error of the layer's output, over all samples, or its sum with the first; None for
        gradients alone.
    curvature_samples : int
        How many samples enter the curvature: the first of the batch, or the first after
        the selection point.
    batch_size : int
        Samples a forward pass holds at a time.
    generator : torch.Generator
        Draws the labels of the Monte Carlo Fisher, and positions.
    sample : {"sequence", "token"}
        What is a row of the Fisher: a whole sample, or one of ``curvature_samples`` random
        positions, scaled so that both agree where positions are uncorrelated.
    choose : callable, optional
        ``choose(information)`` returns the flat indices of the blocks by layer name.
    choose_after : int, optional
        Selection point, in samples (see :func:`selection_point`); without it the blocks are
        chosen at the end, by the samples that then speak of them.

    Raises
    ------
    DataError
        If a gradient is not finite.
    """
    batch = _Batch(model, layers, objective, samples, batch_size, generator)
    drawn = curvature in DRAWN
    if curvature is not None and curvature.endswith("gram"):
        batch.grams = Grams(layers, counted_positions(samples))
    if choose is not None and choose_after is not None:
        stop = min(choose_after + curvature_samples, len(samples))
        information = _gather(batch, choose, choose_after, stop, drawn=drawn)
        return batch.finish(information, curvature)
    stop = min(curvature_samples, len(samples))
    if curvature in (None, "gram"):
        information = _hold(batch, 0, None, drawn=False)
    elif curvature == "exact":
        information = _hold(batch, 0, None, drawn=False)
        information.source = hessian(model, objective, samples[:stop])
    elif sample == "token":
        tokens = Tokens(Drawn.of(samples, curvature_samples, generator))
        information = _hold(batch, len(samples), tokens, drawn=drawn)
    else:
        information = _hold(batch, stop, Held(stop), drawn=drawn)
    information = batch.finish(information, curvature)
    if choose is not None:
        information.chosen = choose(information)
    return information


def selection_point(config: PrunerConfig, samples: int) -> int | None:
    """After how many samples of a pass its blocks are chosen; None for the end."""
    if config.curvature in ("exact", "gram") or config.sample == "token":
        return None
    return min(math.ceil(config.selection_share * samples), samples - 1) or None


def _hold(batch: _Batch, stop: int, held: Held | None, *, drawn: bool) -> Pass:
    """Take a pass that holds the calls of the first ``stop`` samples."""
    count, means = len(batch.samples), batch.means()
    if held is None:
        stop = 0
    elif drawn:
        batch.run(0, stop, means.add, held.add)
    else:
        batch.run(0, stop, both(means.add, held.add))
    batch.run(stop, count, means.add)
    source = None if held is None else held.curvature
    return Pass(count, means.mean_gradients(count), means.squares, batch.loss / count, source)


def _gather(batch: _Batch, choose: Choose, after: int, stop: int, *, drawn: bool) -> Pass:
    """Take a pass that chooses the blocks on its way, and holds nothing."""
    count, means = len(batch.samples), batch.means()
    batch.run(0, after, means.add)
    information = Pass(after, means.mean_gradients(after), means.squares, batch.loss / after)
    information.chosen = choose(information)
    rows = Gathered(batch.layers, information.chosen, after, stop)
    if drawn:
        batch.run(after, stop, rows.add_sums, rows.add_rows)
    else:
        batch.run(after, stop, rows.add_both)
    batch.run(stop, count, rows.add_sums)
    rows.add_up()
    for name, total in rows.sums.items():
        mean = total / (count - after)
        check_finite(name, mean)
        information.means[name] = mean
    information.count, information.loss = count, batch.loss / count
    information.source = rows.curvature
    return information


class _Batch:
    """A batch that is run forward and back, a piece at a time."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        objective: Objective,
        samples: Samples,
        size: int,
        generator: torch.Generator,
    ) -> None:
        self.model = model
        self.layers = layers
        self.objective = objective
        self.samples = samples
        self.size = size
        self.generator = generator
        self.grams: Grams | None = None
        self.loss = 0.0

    def means(self) -> Means:
        """Begin sums over this batch."""
        return Means(self.layers, counted_positions(self.samples))

    def finish(self, information: Pass, curvature: CurvatureName | None) -> Pass:
        """Add the distortion of the layers, where it was gathered, and the loss's dispersion."""
        if curvature == "empirical" or curvature in DRAWN:
            information.dispersion = self.objective.dispersion(
                information.loss, self.samples.targets, drawn=curvature in DRAWN
            )
        if self.grams is not None:
            self.grams.add_up()
            information.source = with_distortion(information.source, self.grams.curvature)
        return information

    def run(self, start: int, stop: int, sink: Sink, drawn: Sink | None = None) -> None:
        """Run samples ``start … stop - 1``.

        Parameters
        ----------
        start, stop : int
        sink : callable
            Takes the calls with the gradients of the data's labels.
        drawn : callable, optional
            Takes them with those of labels drawn from the model.
        """
        if self.grams is not None:
            sink = both(sink, self.grams.add)
        start, stop = parallel.share(start, stop)
        generator = self.generator if drawn is None else parallel.rank_generator(self.generator)
        loss = 0.0
        for first in range(start, stop, self.size):
            piece = self.samples[first : min(first + self.size, stop)]
            loss += self._run(first, piece, sink, drawn, generator)
        self.loss += parallel.all_reduced(loss)[0]

    def _run(
        self,
        first: int,
        piece: Samples,
        sink: Sink,
        drawn: Sink | None,
        generator: torch.Generator,
    ) -> float:
        """Run one piece; nothing of it outlives the call but what the sinks keep."""
        with hooked(self.model, self.layers, len(piece), first) as taps:
            outputs = self.objective.run(self.model, piece.inputs)
            total = self.objective.total(outputs, piece.targets)
            loss = float(total.detach())
            scale = taps.find_scale(total) if self.objective.precision == "float16" else 1.0
            taps.send_back(total, sink, again=drawn is not None, scale=scale)
            if drawn is not None:
                targets = self.objective.sample_targets(outputs, piece.targets, generator)
                total = self.objective.total(outputs, targets)
                scale = taps.find_scale(total) if self.objective.precision == "float16" else 1.0
                taps.send_back(total, drawn, scale=scale)
        return loss
