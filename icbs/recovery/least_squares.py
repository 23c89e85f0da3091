"""``least-squares``: optimal weights on the support, layer after layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from icbs.config.fields import Count, Unit
from icbs.config.groups import Group
from icbs.data.positions import counted_positions
from icbs.errors import DataError
from icbs.layerwise.chain import StopForward
from icbs.layerwise.conjugate_gradients import solve_on_support
from icbs.layerwise.execution_order import Feed
from icbs.model.calls import inputs_and_output
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer
from icbs.recovery.masked_layers import is_frozen
from icbs.recovery.method import Method, Step
from icbs.recovery.moments import InputMoments, LayerMoments
from icbs.recovery.pairs import Pair, paired_order
from icbs.recovery.subject import Subject

FIRST, LEAST, LARGEST = -1, -4, 1
"""Exponents of 10 of the ridges that are searched."""
_JUDGED = 8
"""Number of steps, spread evenly, after which the loss is measured."""
_CHUNK = 1 << 22
"""Maximum number of unfolded features of a convolution at a time."""


class LeastSquaresSettings(Group):
    """Settings of ``least-squares``."""

    ridge: Annotated[
        Annotated[float, Field(ge=0)] | None, Unit("share of the mean squared input")
    ] = None
    """λ, the weight of the distance from the dense weights; by default, for each layer, the power
    of 10 with the lowest error on held-out samples.

    The fewer positions there are, the larger it should be. A given ridge saves two thirds of the
    time of the solver.
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
        """Bytes of the moments and of the solution of the largest layer."""
        wide = max(4, subject.layers[0].dense.element_size())
        return wide * max(
            6 * layer.kind.groups * layer.shape[1] ** 2 + 8 * layer.size for layer in subject.layers
        )

    @torch.no_grad()
    def steps(self, subject: Subject) -> Iterator[Step]:
        """Solve a layer, or the layers of a block, in each step."""
        total, done = len(subject.layers), 0
        for group in paired_order(subject):
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
            stage_moments(subject, group, free, feeds)
            for feeds in (group.calibration, group.heldout)
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
        error, better = judge.error(weight, bias), False
        if not calibration.inputs.count:
            return math.nan, math.nan
        equations = calibration.equations()
        ridges = Ridges(self.settings.ridge)
        while (ridge := ridges.next()) is not None:
            found = solve_on_support(
                *equations.ridged(ridge), kept, weight, iterations=self.settings.iterations
            )
            found_bias = calibration.best_bias(found)
            found_error = judge.error(found, found_bias)
            ridges.note(found_error)
            if torch.isfinite(found).all() and found_error < error:
                weight, bias, error, better = found, found_bias, found_error, True
        if better:
            subject.set_weight(layer, weight.flatten(0, 1).to(layer.dense.dtype))
            if bias is not None:
                layer.kind.module.bias.copy_(bias.flatten())
        return calibration.error(weight, bias), heldout.error(weight, bias)


class Ridges:
    """Ridges to try: a given one, or a search on a logarithmic grid for the lowest error.

    Parameters
    ----------
    given : float, optional
    """

    def __init__(self, given: float | None) -> None:
        self.given = given
        self.errors: dict[int, float] = {}
        """Errors by exponent of 10; by 0 for a given ridge."""
        self._trial: int | None = None

    def next(self) -> float | None:
        """Return the next ridge; None when the search is finished."""
        if self.given is not None:
            self._trial = 0
            return None if self.errors else self.given
        self._trial = self._next_exponent()
        return None if self._trial is None else 10.0**self._trial

    def note(self, error: float) -> None:
        """Note the error of the ridge that :meth:`next` returned."""
        assert self._trial is not None
        self.errors[self._trial] = math.inf if math.isnan(error) else error

    def _next_exponent(self) -> int | None:
        if not self.errors:
            return FIRST
        best = min(self.errors, key=lambda exponent: self.errors[exponent])
        for neighbour in (best + 1, best - 1):
            if neighbour not in self.errors and LEAST <= neighbour <= LARGEST:
                return neighbour
        return None


def stage_moments(
    subject: Subject, group: Pair, stage: Sequence[Layer], feeds: tuple[Feed, Feed]
) -> dict[str, LayerMoments]:
    """Run samples through both models, up to the last layer of a stage; return its moments.

    Parameters
    ----------
    subject : Subject
    group : Pair
    stage : sequence of Layer
        Layers that have the same inputs.
    feeds : tuple of Feed
        Of the pruned and of the dense model, with the same samples.
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
    for (piece, run_pruned), (_, run_dense) in zip(*feeds, strict=True):
        counted = counted_positions(piece)
        pruned = _calls(first, run_pruned, once=once)
        dense = pruned if own_inputs else _calls(dense_of[first.name], run_dense, once=once)
        if [inputs.shape for inputs, _ in pruned] != [inputs.shape for inputs, _ in dense]:
            dense = pruned
        for (inputs, size), (others, _) in zip(pruned, dense, strict=True):
            for x, y in zip(
                _features(first, inputs, size, counted),
                _features(first, others, size, counted),
                strict=True,
            ):
                for kind in shared.values():
                    kind.add(x, y)
                for found in moments.values():
                    found.add_outputs(y)
    return moments


def _calls(
    layer: Layer, run: Callable[[], object], *, once: bool
) -> list[tuple[Tensor, torch.Size]]:
    """Return the inputs, and the shape of the output, of each call of a layer in a run.

    With ``once`` the run ends after the first call.
    """
    found: list[tuple[Tensor, torch.Size]] = []

    def after(key: int, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        inputs, output = inputs_and_output(layer, args, named, output)
        if inputs.numel():
            # A copy, since the model may change its inputs in place.
            found.append((inputs.detach().clone(), output.shape))
            if once:
                raise StopForward

    with watch_calls({0: layer.module}, after=after), suppress(StopForward):
        run()
    return found


def _features(
    layer: Layer, inputs: Tensor, output: torch.Size, counted: Tensor | None
) -> Iterator[Tensor]:
    """Yield the features of a call, a few samples at a time, shape (positions, groups · in)."""
    count = len(inputs)
    size = count
    if not layer.kind.pointwise:
        places = output.numel() // output[1] // count
        size = max(1, _CHUNK // (places * layer.shape[1] * layer.kind.groups))
    for start in range(0, count, size):
        part = inputs[start : start + size]
        features = layer.kind.features(part, output, len(part)).flatten(0, 1)
        if counted is not None and len(features) == counted.numel():
            features = features[counted.flatten()]
        yield features


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
