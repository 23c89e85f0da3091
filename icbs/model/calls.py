"""Calls of layers in a forward pass: their tensors, their number and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call, first_argument, tensors
from icbs.data.samples import Samples
from icbs.errors import DataError, LayerError
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer

MAX_SEARCHED = {True: 1 << 22, False: 1 << 15}
"""Input entries, floating-point or not, searched for samples that reach a rarely run layer."""
PER_PASS = {True: 1 << 18, False: 1 << 10}
"""Input entries, floating-point or not, in one forward pass of that search."""
Run = Callable[[Any, Any], Any]
"""``run(model, inputs)`` calls a model."""


def inputs_and_output(
    layer: Layer, args: tuple[Any, ...], named: dict[str, Any], output: Any
) -> tuple[Tensor, Tensor]:
    """Return inputs and output of a call, which must be plain tensors.

    Raises
    ------
    LayerError
        If the layer takes or returns anything but a tensor, or runs inside of ``torch.vmap``.
    """
    inputs = first_argument(args, named)
    for what, value in (("takes", inputs), ("returns", output)):
        if not isinstance(value, Tensor):
            raise LayerError(
                f"layer {layer.name!r} ({type(layer.module).__name__}) {what} "
                f"{type(value).__name__}; only a layer that {what} one tensor can be pruned: "
                "exclude it, or wrap it in a module of the model's own"
            )
        if torch._C._functorch.is_functorch_wrapped_tensor(value):
            raise LayerError(
                f"layer {layer.name!r} runs inside of a transformation of torch.func (vmap, "
                "grad, …), which hides its samples; call it on batches, or exclude it"
            )
    return inputs, output


def check_explained(layer: Layer, inputs: Tensor, output: Tensor, samples: int = 1) -> None:
    """Refuse a layer whose output is not its weight times its inputs plus its bias.

    Raises
    ------
    LayerError
    """
    if not layer.kind.explains(inputs, output, samples):
        raise LayerError(
            f"layer {layer.name!r} ({type(layer.module).__name__}) does not return its weight "
            "times its inputs plus its bias, so that gradients and masks would be wrong; "
            "merge what it adds into its weight, or exclude it"
        )


@dataclass(frozen=True)
class Reach:
    """Order and number of the layers' calls."""

    order: list[str]
    """Names in the order in which they first run."""
    calls: dict[str, int | None]
    """Calls of each in a forward pass; None where samples differ."""
    uneven: list[str]
    """Layers that get only some samples, or parts of them, such as experts behind a router."""


def reach(
    model: nn.Module,
    layers: Sequence[Layer],
    singles: Sequence[Samples],
    more: Iterable[Samples],
    *,
    run: Run = call,
    watch: Mapping[str, nn.Module] | None = None,
    verify: bool = False,
) -> Reach:
    """Run some samples one by one, then others until every layer has run.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    layers : sequence of Layer
    singles : sequence of Samples
        One sample each, all of which are run.
    more : iterable of Samples
        Parts of any size, run as long as some layer has not run.
    run : callable
        ``run(model, inputs)``.
    watch : mapping of str to nn.Module, optional
        Other modules to include in the order.
    verify : bool
        Apply :func:`check_explained` to each layer.

    Raises
    ------
    DataError
        If no sample reaches a layer.
    LayerError
        If a layer can't be pruned as it is used.
    """
    watched = dict(watch or {}) | {layer.name: layer.module for layer in layers}
    verified = set() if verify else {layer.name for layer in layers}
    order: list[str] = []

    def trace(piece: Samples) -> _Trace:
        found = _trace(model, layers, piece, run, watched, verified)
        _merge(order, found.names)
        return found

    traces = [trace(single) for single in singles]
    calls: dict[str, int | None] = {}
    uneven, missing, tried = [], [], len(singles)
    for name in [layer.name for layer in layers]:
        counts = {found.names.count(name) for found in traces}
        calls[name] = counts.pop() if len(counts) == 1 else None
        if any(found.shapes[name] != traces[0].shapes[name] for found in traces):
            uneven.append(name)
        if not any(found.shapes[name] for found in traces):
            missing.append(name)
    for piece in more:
        if not missing:
            break
        if not len(piece):
            continue
        found, tried = trace(piece), tried + len(piece)
        for name in [name for name in missing if found.shapes[name]]:
            missing.remove(name)
            calls[name] = None
            uneven.append(name)
    if missing:
        others = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"layer {missing[0]!r} did not run in the forward pass of any of {tried} "
            f"samples{others}; add it to exclude, or give samples that reach it"
        )
    return Reach(order, calls, uneven)


@dataclass
class _Trace:
    """Calls in one forward pass."""

    shapes: dict[str, list[torch.Size]]
    """Shapes of the inputs of each layer's calls, without empty ones."""
    names: list[str] = field(default_factory=list)
    """Names of the modules called, one entry per call."""


@torch.no_grad()
def _trace(
    model: nn.Module,
    layers: Sequence[Layer],
    piece: Samples,
    run: Run,
    watched: Mapping[str, nn.Module],
    verified: set[str],
) -> _Trace:
    """Record the calls of a forward pass; check layers that are not yet in ``verified``."""
    by_name = {layer.name: layer for layer in layers}
    found = _Trace({name: [] for name in by_name})

    def before(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.names.append(name)

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        inputs, output = inputs_and_output(by_name[name], args, named, output)
        if not inputs.numel():  # an expert that gets no samples
            return
        found.shapes[name].append(inputs.shape)
        if name not in verified:
            check_explained(by_name[name], inputs, output)
            verified.add(name)

    modules = {name: layer.module for name, layer in by_name.items()}
    with watch_calls(watched, before=before), watch_calls(modules, after=after):
        run(model, piece.inputs)
    return found


def _merge(order: list[str], names: Sequence[str]) -> None:
    """Insert new names into an order, each before the next known name in ``names``."""
    known = set(order)
    place = len(order)
    for name in reversed(list(dict.fromkeys(names))):
        if name in known:
            place = order.index(name)
        else:
            order.insert(place, name)
            known.add(name)


def slices(samples: Samples, start: int) -> Iterator[Samples]:
    """Yield samples from ``start`` on in slices, up to :data:`MAX_SEARCHED` input entries."""
    first = tensors(samples.inputs)[0]
    floating, each = first.is_floating_point(), max(1, first[0].numel())
    stop = min(len(samples), start + max(1, MAX_SEARCHED[floating] // each))
    size = max(1, PER_PASS[floating] // each)
    for begin in range(start, stop, size):
        yield samples[begin : min(begin + size, stop)]
