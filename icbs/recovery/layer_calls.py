"""Inputs of layers in runs of a model, which may be stored for several layers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor

from icbs.layerwise.chain import StopForward
from icbs.model.calls import inputs_and_output
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer

LayerCalls: TypeAlias = list[tuple[Tensor, torch.Size]]
"""Inputs and shape of the output of each call of a layer."""


def layer_calls(
    layers: Sequence[Layer], run: Callable[[], object], *, once: bool = False
) -> dict[str, LayerCalls]:
    """Return the calls of layers in a run, by name.

    With ``once`` the run ends after the first call.
    """
    found: dict[str, LayerCalls] = {layer.name: [] for layer in layers}
    of = {layer.name: layer for layer in layers}

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        inputs, output = inputs_and_output(of[name], args, named, output)
        if inputs.numel():
            # A copy, since the model may change its inputs in place.
            found[name].append((inputs.detach().clone(), output.shape))
            if once:
                raise StopForward

    modules = {name: layer.module for name, layer in of.items()}
    with watch_calls(modules, after=after), suppress(StopForward):
        run()
    return found


class StoredCalls:
    """Calls of layers whose weights don't change, stored in one run if there is room.

    Parameters
    ----------
    run : callable
        Runs a part of the samples.
    room : Room
    """

    def __init__(self, run: Callable[[], object], room: Room) -> None:
        self.layers: list[Layer] = []
        """Layers whose calls are stored together; each is asked for at most once."""
        self._run, self._room = run, room
        self._found: dict[str, LayerCalls] | None = None

    def of(self, layer: Layer, *, once: bool) -> LayerCalls:
        """Return the calls of a layer; see :func:`layer_calls`."""
        if self._found is None:
            self._found = {}
            if len(self.layers) > 1 and self._room.bytes > 0:
                found = layer_calls(self.layers, self._run)
                if self._room.take(sum(x.nbytes for calls in found.values() for x, _ in calls)):
                    self._found = found
        if layer.name in self._found:
            return self._found.pop(layer.name)
        return layer_calls([layer], self._run, once=once)[layer.name]


class Room:
    """Bytes that may be stored; none any more after the first request that does not fit."""

    def __init__(self, size: int) -> None:
        self.bytes = size

    def take(self, size: int) -> bool:
        """Whether so many bytes fit; they are taken then."""
        fits = size <= self.bytes
        self.bytes = self.bytes - size if fits else 0
        return fits
