"""Calls of layers in a forward pass: their tensors, their number, and the samples in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call, first_argument, tensors
from icbs.data.samples import Samples
from icbs.errors import DataError, LayerError
from icbs.model.layer import Layer

SEARCHED = {True: 1 << 22, False: 1 << 15}
"""Entries of inputs, floating-point or not, searched for a layer that does not run at once."""
AT_ONCE = {True: 1 << 18, False: 1 << 10}
"""Entries of these in one forward pass."""
Run = Callable[[Any, Any], Any]
"""``run(model, inputs)`` calls a model."""


def inputs_and_output(
    layer: Layer, args: tuple[Any, ...], named: dict[str, Any], output: Any
) -> tuple[Tensor, Tensor]:
    """Return inputs and output of a call, if they are tensors that can be looked at.

    Raises
    ------
    LayerError
        If the layer returns something else than a tensor, or runs inside of ``torch.vmap``.
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
                "grad, …), where its calls can't be told apart; call it on batches, or exclude it"
            )
    return inputs, output


def check_explained(layer: Layer, inputs: Tensor, output: Tensor, samples: int = 1) -> None:
    """Refuse a layer that does something else than its kind.

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
    """Which layers the samples reach."""

    order: list[str]
    """Names in the order in which they first run."""
    calls: dict[str, int | None]
    """Calls of each in a forward pass; None where samples differ."""
    uneven: list[str]
    """Layers that see some samples only, or parts of them, as experts behind a router do."""


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
    """Run some samples one by one, and then others until every layer has run.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    layers : sequence of Layer
    singles : sequence of Samples
        One sample each, all of which are run.
    more : iterable of Samples
        Pieces of any size, run while there is a layer that has not.
    run : callable
        ``run(model, inputs)``.
    watch : mapping of str to nn.Module, optional
        Other modules whose order is of interest.
    verify : bool
        Refuse a layer that does something else than its kind.

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

    def look(piece: Samples) -> _Seen:
        seen = _look(model, layers, piece, run, watched, verified)
        _merge(order, seen.names)
        return seen

    each = [look(single) for single in singles]
    calls: dict[str, int | None] = {}
    uneven, missing, tried = [], [], len(singles)
    for name in [layer.name for layer in layers]:
        counts = {seen.names.count(name) for seen in each}
        calls[name] = counts.pop() if len(counts) == 1 else None
        if any(seen.shapes[name] != each[0].shapes[name] for seen in each):
            uneven.append(name)
        if not any(seen.shapes[name] for seen in each):
            missing.append(name)
    for piece in more:
        if not missing:
            break
        if not len(piece):
            continue
        seen, tried = look(piece), tried + len(piece)
        for name in [name for name in missing if seen.shapes[name]]:
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
class _Seen:
    """What a forward pass calls."""

    shapes: dict[str, list[torch.Size]]
    """Shapes of the inputs of each layer's calls, but for those with nothing."""
    names: list[str] = field(default_factory=list)
    """Names of all modules watched, call by call."""


@torch.no_grad()
def _look(
    model: nn.Module,
    layers: Sequence[Layer],
    piece: Samples,
    run: Run,
    watched: Mapping[str, nn.Module],
    verified: set[str],
) -> _Seen:
    """Run a forward pass and note its calls; check layers that are not yet among ``verified``."""
    found = _Seen({layer.name: [] for layer in layers})

    def before(name: str) -> Callable[..., None]:
        return lambda *_: found.names.append(name)

    def after(layer: Layer) -> Callable[..., None]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any
        ) -> None:
            inputs, output = inputs_and_output(layer, args, named, output)
            if not inputs.numel():  # an expert that is called with nothing
                return
            found.shapes[layer.name].append(inputs.shape)
            if layer.name not in verified:
                check_explained(layer, inputs, output)
                verified.add(layer.name)

        return hook

    handles = [m.register_forward_pre_hook(before(name)) for name, m in watched.items()]
    handles += [
        layer.module.register_forward_hook(after(layer), with_kwargs=True) for layer in layers
    ]
    try:
        run(model, piece.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _merge(order: list[str], names: Sequence[str]) -> None:
    """Put new names into an order, each before those known ones that it runs before."""
    known = set(order)
    place = len(order)
    for name in reversed(list(dict.fromkeys(names))):
        if name in known:
            place = order.index(name)
        else:
            order.insert(place, name)
            known.add(name)


def slices(samples: Samples, start: int) -> Iterator[Samples]:
    """Yield further samples in slices, until as many are seen as come cheaply."""
    first = tensors(samples.inputs)[0]
    kind, each = first.is_floating_point(), max(1, first[0].numel())
    stop = min(len(samples), start + max(1, SEARCHED[kind] // each))
    size = max(1, AT_ONCE[kind] // each)
    for begin in range(start, stop, size):
        yield samples[begin : min(begin + size, stop)]
