"""``least-squares``: optimal weights on the support, layer after layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from icbs.config.fields import Count, Unit
from icbs.config.groups import Group
from icbs.data.positions import counted_positions
from icbs.errors import DataError
from icbs.layerwise.conjugate_gradients import solve_on_support
from icbs.model.layer import Layer
from icbs.recovery.layer_calls import layer_calls
from icbs.recovery.masked_layers import is_frozen
from icbs.recovery.memory import memory_limit
from icbs.recovery.method import Method, Step
from icbs.recovery.moments import InputMoments, LayerMoments, NormalEquations
from icbs.recovery.pairs import Pair, Piece, paired_order
from icbs.recovery.ridge import best_ridge
from icbs.recovery.subject import Subject

_JUDGED = 4
"""Number of steps, spread evenly, after which the loss is measured."""
_ROWS = 128
"""Outputs of a layer, spread evenly, by which its ridge is chosen."""
_CHUNK = 1 << 22
"""Maximum number of unfolded features of a convolution at a time."""
_COPIES = 6
"""Arrays of the size of the unfolded features, of both models, that exist at the same time."""


class LeastSquaresSettings(Group):
    """Settings of ``least-squares``."""

    ridge: Annotated[
        Annotated[float, Field(ge=0)] | None, Unit("share of the mean squared input")
    ] = None
    """λ, the weight of the distance from the dense weights; by default, for each layer, the power
    of 10 with which 128 of its outputs have the lowest error on held-out samples.

    The fewer positions there are, the larger it should be.
    """
    iterations: Annotated[Count, Unit("iterations")] = 50
    """Maximum number of iterations of conjugate gradients for each layer."""


class LeastSquares(Method):
    """Minimise the error of each layer's output, given the pruned layers before it.

    In the order of execution, each layer gets the weights on its support, and the bias, that
    minimise ``‖X⁰W⁰ᵀ + b⁰ - XWᵀ - b‖² + λ‖W - W⁰‖²``, with inputs X of the pruned and X⁰ of the
    dense model, so that a layer also corrects the errors of the layers before it. Layers with the
    same inputs are solved together. New weights are kept if they lower the error on held-out
    samples too.

    There is no backward pass. Convolutions are unfolded; those with groups are solved by group.
    """

    name = "least-squares"
    Settings = LeastSquaresSettings
    settings: LeastSquaresSettings

    def memory(self, subject: Subject) -> int:
        """Bytes of the moments and of the solution of the largest layer, and of stored calls."""
        wide = max(4, subject.layers[0].dense.element_size())
        samples = len(subject.samples) + len(subject.heldout)
        limit = memory_limit(subject)
        unfolds = not all(layer.kind.pointwise for layer in subject.layers)
        numbers = _COPIES * _chunk(limit) * unfolds + max(
            6 * layer.kind.groups * layer.shape[1] ** 2 + 8 * layer.size for layer in subject.layers
        )
        return wide * numbers + min(_room(limit), samples * subject.call_bytes)

    @torch.no_grad()
    def steps(self, subject: Subject) -> Iterator[Step]:
        """Solve a layer, or the layers of a block, in each step."""
        total, done = len(subject.layers), 0
        for group in paired_order(subject, room=_room(subject.plan.limit)):
            done += len(group.layers)
            if done <= self.done:
                continue
            errors: list[tuple[float, float]] = []
            for stage in group.stages():
                errors += self._solve_stage(subject, group, stage)
            before = done - len(group.layers)
            due = done == total or done * _JUDGED // total > before * _JUDGED // total
            yield Step(group.label, done, total, *_means(errors), judged=due)

    def _solve_stage(
        self, subject: Subject, group: Pair, stage: Sequence[Layer]
    ) -> list[tuple[float, float]]:
        """Solve layers that have the same inputs; return their errors on both kinds of samples."""
        free = [layer for layer in stage if not is_frozen(layer)]
        if not free:
            return []
        calibration, heldout = (
            stage_moments(subject, group, free, pieces)
            for pieces in (group.calibration, group.heldout)
        )
        found = []
        for layer in free:
            one, other = calibration[layer.name], heldout[layer.name]
            if not torch.isfinite(one.inputs.pruned).all():
                raise DataError(
                    f"the inputs of layer {layer.name!r} are NaN or infinite; check the data, or "
                    "load the model in a wider floating-point type"
                )
            found.append(self._solve(subject, layer, one, other))
        return found

    def _solve(
        self, subject: Subject, layer: Layer, calibration: LayerMoments, heldout: LayerMoments
    ) -> tuple[float, float]:
        """Set a layer's weights if that lowers its held-out error; return its errors."""
        # A layer that no held-out sample reaches is judged by the calibration samples.
        judge = heldout if heldout.inputs.count else calibration
        groups = layer.kind.groups
        kept = ~layer.pruned.view(layer.shape).unflatten(0, (groups, -1))
        weight = layer.weight.to(calibration.dense.dtype).unflatten(0, (groups, -1))
        bias = None
        if calibration.bias is not None:
            own = layer.kind.module.bias.detach()
            bias = own.to(weight.dtype).unflatten(0, (groups, -1))
        error = judge.error(weight, bias)
        if not calibration.inputs.count:
            return math.nan, math.nan
        ridge = self.settings.ridge
        if ridge is None:
            ridge = self._best_ridge(calibration, judge, kept, weight)
        found = self._minimum(calibration.equations(), kept, weight, ridge)
        found_bias = calibration.best_bias(found)
        if torch.isfinite(found).all() and judge.error(found, found_bias) < error:
            weight, bias = found, found_bias
            subject.set_weight(layer, weight.flatten(0, 1).to(layer.dense.dtype))
            if bias is not None:
                layer.kind.module.bias.copy_(bias.flatten())
        return calibration.error(weight, bias), heldout.error(weight, bias)

    def _best_ridge(
        self, calibration: LayerMoments, judge: LayerMoments, kept: Tensor, weight: Tensor
    ) -> float:
        """Return the ridge with which some outputs have the lowest error on held-out samples."""
        rows = slice(None, None, math.ceil(weight.shape[1] / _ROWS))
        calibration, judge = calibration.some(rows), judge.some(rows)
        kept, weight = kept[:, rows], weight[:, rows]
        equations = calibration.equations()

        def error(ridge: float) -> float:
            found = self._minimum(equations, kept, weight, ridge)
            return judge.error(found, calibration.best_bias(found))

        return best_ridge(error)

    def _minimum(
        self, equations: NormalEquations, kept: Tensor, start: Tensor, ridge: float
    ) -> Tensor:
        """Return the weights on the support that minimise the squared error with a ridge."""
        hessian, sides = equations.ridged(ridge)
        return solve_on_support(hessian, sides, kept, start, iterations=self.settings.iterations)


def stage_moments(
    subject: Subject, group: Pair, stage: Sequence[Layer], pieces: Sequence[Piece]
) -> dict[str, LayerMoments]:
    """Run samples through both models, up to the last layer of a stage; return its moments.

    Parameters
    ----------
    subject : Subject
    group : Pair
    stage : sequence of Layer
        Layers that have the same inputs.
    pieces : sequence of Piece
    """
    dense_of = {layer.name: layer for layer in group.dense_layers}
    first = stage[0]
    movable = {layer.name: _bias_of(dense_of[layer.name], layer) for layer in stage}
    shared: dict[bool, InputMoments] = {}
    moments = {}
    for layer in stage:
        centred = movable[layer.name] is not None
        if centred not in shared:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            like = layer.dense.new_zeros((), dtype=wide)
            shared[centred] = InputMoments(
                layer.kind.groups, layer.shape[1], shifted=centred, like=like
            )
        moments[layer.name] = LayerMoments.of(layer, shared[centred], movable[layer.name])
    own_inputs = first.name in subject.uneven
    once = first.name in group.called_once and not own_inputs
    chunk = _chunk(subject.plan.limit)
    for piece in pieces:
        counted = counted_positions(piece.samples)
        pruned = layer_calls([first], piece.run, once=once)[first.name]
        dense = pruned if own_inputs else piece.dense.of(dense_of[first.name], once=once)
        if [inputs.shape for inputs, _ in pruned] != [inputs.shape for inputs, _ in dense]:
            dense = pruned
        for (inputs, size), (others, _) in zip(pruned, dense, strict=True):
            for x, y in zip(
                _features(first, inputs, size, counted, chunk),
                _features(first, others, size, counted, chunk),
                strict=True,
            ):
                for kind in shared.values():
                    kind.add(x, y)
                for found in moments.values():
                    found.add_outputs(y)
    return moments


def _features(
    layer: Layer, inputs: Tensor, output: torch.Size, counted: Tensor | None, chunk: int
) -> Iterator[Tensor]:
    """Yield the features of a call, a few samples at a time, shape (positions, groups · in)."""
    count = len(inputs)
    size = count
    if not layer.kind.pointwise:
        places = output.numel() // output[1] // count
        size = max(1, chunk // (places * layer.shape[1] * layer.kind.groups))
    for start in range(0, count, size):
        part = inputs[start : start + size]
        features = layer.kind.features(part, output, len(part)).flatten(0, 1)
        if counted is not None and len(features) == counted.numel():
            features = features[counted.flatten()]
        yield features


def _room(limit: int) -> int:
    """Return the bytes for stored inputs of a block's layers in the dense model."""
    return limit // 8


def _chunk(limit: int) -> int:
    """Return the number of unfolded features at a time."""
    return min(_CHUNK, limit // 256)


def _bias_of(dense: Layer, layer: Layer) -> Tensor | None:
    """Return the dense bias if the layer has one that may move."""
    own = getattr(layer.kind.module, "bias", None)
    return dense.kind.module.bias if own is not None and own.requires_grad else None


def _means(errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean calibration and held-out error of the layers of a step, those that are known."""
    means = []
    for column in zip(*errors, strict=True):
        known = [value for value in column if not math.isnan(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    return (means[0], means[1]) if means else (math.nan, math.nan)
