"""Calls of layers: what is seen of them, how often they come, and for which samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.samples import Samples
from icbs.data.trees import call, first_argument, tensors
from icbs.errors import DataError, LayerError
from icbs.layers.layer import Layer

NUMBERS, POSITIONS = 1 << 22, 1 << 15
"""Entries of inputs, floating-point or tokens, searched for a layer that does not run at once."""
Run = Callable[[Any, Any], Any]
"""``run(model, inputs)`` calls a model."""


def seen_in(
    layer: Layer, args: tuple[Any, ...], named: dict[str, Any], output: Any
) -> tuple[Tensor, Tensor]:
    """Return inputs and output of a call, if they are what the layer's kind takes and returns.

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
    watch: dict[str, nn.Module] | None = None,
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
    watch : dict of str to nn.Module, optional
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
    by_name = {layer.name: layer for layer in layers}
    watched = (watch or {}) | {layer.name: layer.module for layer in layers}
    verified: set[str] = set() if verify else set(by_name)
    order: list[str] = []

    def look(piece: Samples) -> tuple[dict[str, list[torch.Size]], Counter[str]]:
        """Shapes of the inputs of each call that has some, and how many calls there are."""
        found: dict[str, list[torch.Size]] = {name: [] for name in by_name}
        here: list[str] = []

        def hook_of(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
                here.append(name)

            return hook

        def after_of(layer: Layer) -> Callable[..., None]:
            def hook(
                module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any
            ) -> None:
                inputs, output = seen_in(layer, args, named, output)
                if not inputs.numel():  # an expert that is called with nothing
                    return
                found[layer.name].append(inputs.shape)
                if layer.name not in verified:
                    check_explained(layer, inputs, output)
                    verified.add(layer.name)

            return hook

        handles = [
            module.register_forward_pre_hook(hook_of(name), with_kwargs=True)
            for name, module in watched.items()
        ]
        handles += [
            layer.module.register_forward_hook(after_of(layer), with_kwargs=True)
            for layer in layers
        ]
        try:
            with torch.no_grad():
                run(model, piece.inputs)
        finally:
            for handle in handles:
                handle.remove()
        _merge(order, here)
        return found, Counter(here)

    each = [look(single) for single in singles]
    calls: dict[str, int | None] = {}
    uneven, missing, tried = [], [], len(singles)
    for name in by_name:
        counts = {count[name] for _, count in each}
        calls[name] = counts.pop() if len(counts) == 1 else None
        if any(found[name] != each[0][0][name] for found, _ in each):
            uneven.append(name)
        if not any(found[name] for found, _ in each):
            missing.append(name)
    for piece in more:
        if not missing:
            break
        if not len(piece):
            continue
        (found, _), tried = look(piece), tried + len(piece)
        for name in [name for name in missing if found[name]]:
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
    """Yield further samples in slices that double, until as many are seen as come cheaply."""
    first = tensors(samples.inputs)[0]
    numbers = NUMBERS if first.is_floating_point() else POSITIONS
    stop = min(len(samples), start + max(1, numbers // max(1, first[0].numel())))
    size = max(1, start)
    while start < stop:
        yield samples[start : min(start + size, stop)]
        start, size = start + size, 2 * size
