"""Curvature of the loss on a block of weights, from one pass for all layers.

A linear layer's per-sample gradient is an outer product of what came in (``a``) and what
came back (``δ``): ``G[s, (r, c)] = Σ_t δ[s, t, r] · a[s, t, c]``. Keeping the two, a block's
columns are gathered when its indices are known, and the matrix of N × (all weights) is
never formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from icbs.config import CurvatureName
from icbs.errors import DataError
from icbs.layers import Layer
from icbs.objective import Objective
from icbs.samples import Samples
from icbs.trees import call


@dataclass
class Trace:
    """What a linear layer received and what came back, sample by sample."""

    inputs: Tensor
    """Shape (N, T, in)."""
    deltas: Tensor
    """Gradient of a sample's own loss with respect to the outputs, shape (N, T, out)."""

    def columns(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Per-sample gradients of the weights at (rows, columns), shape (N, b)."""
        gathered = self.deltas[:, :, rows] * self.inputs[:, :, columns]
        return gathered.squeeze(1) if gathered.shape[1] == 1 else gathered.sum(dim=1)

    def gradient_sum(self) -> Tensor:
        """Gradient summed over samples, shape (out, in)."""
        return self.deltas.flatten(0, 1).T @ self.inputs.flatten(0, 1)


@dataclass
class Curvature:
    """Curvature ``C`` of the loss with respect to the gates of a block's weights.

    The gate of weight i multiplies its dense value, so that C carries ``w⁰_i w⁰_j``.
    """

    factor: Tensor | None = None
    """F of shape (N, b) with ``C = FᵀF``, or None where :attr:`matrix` is given."""
    matrix: Tensor | None = None
    """C of shape (b, b)."""


@dataclass
class Pass:
    """First- and second-order information on every layer, from one batch."""

    count: int
    """Samples in the mean gradient."""
    gradients: dict[str, Tensor]
    """Mean gradient at the current (pruned) weights by layer name, shape (out, in)."""
    squares: dict[str, Tensor]
    """Sum of the squared inputs by layer name, shape (in,)."""
    curvature: Callable[[Layer, Tensor], Curvature]
    """Curvature of the block of a layer at given flat indices."""
    loss: float
    """Mean loss of the batch."""


def take_pass(
    model: nn.Module,
    layers: Sequence[Layer],
    objective: Objective,
    samples: Samples,
    *,
    curvature: CurvatureName,
    curvature_samples: int,
    batch_size: int,
    generator: torch.Generator,
) -> Pass:
    """Run one forward and backward pass that serves all the layers.

    Parameters
    ----------
    model, layers, objective
        The model, in evaluation mode, its prunable layers and its loss.
    samples : Samples
        The batch; all of it enters the mean gradient, the first ``curvature_samples`` of
        it the curvature.
    curvature : {"monte-carlo", "empirical", "exact"}
        Fisher with labels drawn from the model, with the data's labels, or the Hessian.
    batch_size : int
        Samples a forward pass holds at a time.
    generator : torch.Generator
        Draws the labels of the Monte Carlo Fisher.

    Raises
    ------
    DataError
        If a layer does not take part in the forward pass, or a gradient is not finite.
    """
    first = min(curvature_samples, len(samples))
    gather = _Gather(layers)
    starts = [*range(0, first, batch_size), *range(first, len(samples), batch_size)]
    for start, stop in zip(starts, [*starts[1:], len(samples)], strict=True):
        piece = samples[start:stop]
        with record(layers) as calls:
            outputs = call(model, piece.inputs)
        _check_ran(layers, calls)
        total = objective.total(outputs, piece.targets)
        wanted = start < first
        draws = wanted and curvature == "monte-carlo"
        traces = _traces(total, layers, calls, retain=draws)
        gather.add(total, traces)
        if draws:
            with torch.no_grad():
                drawn = objective.sample_targets(outputs.detach(), piece.targets, generator)
            traces = _traces(objective.total(outputs, drawn), layers, calls)
        if wanted and curvature != "exact":
            gather.keep(traces)
    gather.check()
    if curvature == "exact":
        source = _hessian(model, objective, samples[:first])
    else:
        source = _fisher(gather.joined())
    count = len(samples)
    return Pass(
        count=count,
        gradients={name: total / count for name, total in gather.gradients.items()},
        squares=gather.squares,
        curvature=source,
        loss=gather.loss / count,
    )


Calls = dict[str, list[tuple[Tensor, Tensor]]]


@contextmanager
def record(layers: Sequence[Layer]) -> Iterator[Calls]:
    """Record each call of each layer within the context as (inputs, outputs).

    The outputs are part of the autograd graph even where every parameter is frozen.
    """
    calls: Calls = {layer.name: [] for layer in layers}

    def hook_of(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.requires_grad_()
            calls[name].append((args[0].detach(), output))
            return output

        return hook

    handles = [layer.module.register_forward_hook(hook_of(layer.name)) for layer in layers]
    try:
        with torch.enable_grad():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


class _Gather:
    """Sums over the pieces of a batch."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.gradients = {layer.name: torch.zeros_like(layer.dense) for layer in layers}
        self.squares = {layer.name: layer.dense.new_zeros(layer.shape[1]) for layer in layers}
        self.kept: dict[str, list[Trace]] = {layer.name: [] for layer in layers}
        self.loss = 0.0

    def add(self, total: Tensor, traces: dict[str, Trace]) -> None:
        self.loss += float(total.detach())
        for name, trace in traces.items():
            self.gradients[name] += trace.gradient_sum()
            self.squares[name] += trace.inputs.flatten(0, 1).square().sum(dim=0)

    def keep(self, traces: dict[str, Trace]) -> None:
        for name, trace in traces.items():
            self.kept[name].append(trace)

    def joined(self) -> dict[str, Trace]:
        return {
            name: Trace(
                torch.cat([t.inputs for t in traces]), torch.cat([t.deltas for t in traces])
            )
            for name, traces in self.kept.items()
        }

    def check(self) -> None:
        for name, gradient in self.gradients.items():
            if not torch.isfinite(gradient).all():
                raise DataError(
                    f"the gradient of layer {name!r} is NaN or infinite; check the loss and the "
                    "data, or use a wider floating-point type"
                )


def _check_ran(layers: Sequence[Layer], calls: Calls) -> None:
    for layer in layers:
        if not calls[layer.name]:
            raise DataError(
                f"layer {layer.name!r} did not run in the forward pass; add it to exclude"
            )


def _traces(
    total: Tensor, layers: Sequence[Layer], calls: Calls, *, retain: bool = False
) -> dict[str, Trace]:
    """Backpropagate to the layers' outputs only; weight gradients are never computed here."""
    outputs = [output for layer in layers for _, output in calls[layer.name]]
    gradients = iter(
        torch.autograd.grad(
            total, outputs, retain_graph=retain, allow_unused=True, materialize_grads=True
        )
    )
    traces = {}
    for layer in layers:
        inputs, deltas = [], []
        for received, _ in calls[layer.name]:
            delta = next(gradients)
            inputs.append(received.reshape(len(received), -1, layer.shape[1]))
            deltas.append(delta.reshape(len(delta), -1, layer.shape[0]))
        single = len(inputs) == 1
        traces[layer.name] = Trace(
            inputs[0] if single else torch.cat(inputs, dim=1),
            deltas[0] if single else torch.cat(deltas, dim=1),
        )
    return traces


def _fisher(traces: dict[str, Trace]) -> Callable[[Layer, Tensor], Curvature]:
    """``C = AᵀA/N`` with ``A = w⁰ ∘ G``: second moment of the per-sample gate gradients."""

    def curvature(layer: Layer, index: Tensor) -> Curvature:
        rows, columns = layer.unravel(index)
        gradients = traces[layer.name].columns(rows, columns)
        weights = layer.dense[rows, columns]
        return Curvature(factor=gradients.mul_(weights / len(gradients) ** 0.5))

    return curvature


def _hessian(
    model: nn.Module, objective: Objective, samples: Samples
) -> Callable[[Layer, Tensor], Curvature]:
    """Exact second derivatives with respect to the gates of a block, by autograd.

    Costs b backward passes: for small blocks, and as the oracle of the Fishers.
    """

    def curvature(layer: Layer, index: Tensor) -> Curvature:
        rows, columns = layer.unravel(index)
        dense = layer.dense[rows, columns]
        current = layer.module.weight.detach()
        gates = (~layer.pruned[index]).to(dense.dtype)

        def mean_loss(gates: Tensor) -> Tensor:
            weight = current.index_put((rows, columns), gates * dense)
            replaced = {f"{layer.name}.weight": weight}
            inputs = samples.inputs
            args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
            if isinstance(inputs, dict):
                outputs = functional_call(model, replaced, (), inputs)
            else:
                outputs = functional_call(model, replaced, args)
            return objective.mean(outputs, samples.targets)

        matrix = torch.autograd.functional.hessian(mean_loss, gates)
        return Curvature(matrix=(matrix + matrix.T) / 2)

    return curvature
