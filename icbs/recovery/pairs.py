"""Layers in the order of execution, with runs of the pruned and of the dense model together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from icbs.data.pytree import first_argument
from icbs.data.samples import Samples
from icbs.errors import LayerError
from icbs.layerwise.chain import StopForward
from icbs.layerwise.execution_order import in_execution_order
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer
from icbs.recovery.layer_calls import Room, StoredCalls
from icbs.recovery.subject import Subject


@dataclass(frozen=True)
class Piece:
    """Part of the samples, with the runs through a group of layers of both models."""

    samples: Samples
    run: Callable[[], object]
    """Runs the samples through the layers of the pruned model."""
    dense: StoredCalls
    """Calls of the layers of the dense model."""


@dataclass
class Pair:
    """A group of layers, of the pruned and of the dense model, with their samples."""

    layers: list[Layer]
    dense_layers: list[Layer]
    calibration: list[Piece]
    heldout: list[Piece]
    called_once: set[str] = field(default_factory=set)
    """Layers that run once in a run of a piece, which can end after them; set by
    :meth:`stages`."""

    @property
    def label(self) -> str:
        """Name of the layer, or of the first and last of several."""
        names = [layer.name for layer in self.layers]
        return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"

    def stages(self) -> Iterator[list[Layer]]:
        """Yield the layers in the order of execution, those with the same inputs together."""
        if len(self.layers) == 1:
            yield self.layers
            return
        names = {layer.name: layer for layer in self.layers}
        received: list[tuple[str, Tensor, int]] = []

        def before(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            inputs = first_argument(args, named)
            received.append((name, inputs, getattr(inputs, "_version", 0)))

        modules = {layer.name: layer.module for layer in self.layers}
        with watch_calls(modules, before=before), suppress(StopForward):
            self.calibration[0].run()
        stages: list[list[str]] = []
        last: tuple[Tensor, int] | None = None
        calls = [name for name, _, _ in received]
        self.called_once = {name for name in names if calls.count(name) == 1}
        for name, inputs, version in received:
            once = name in self.called_once
            same = last is not None and last[0] is inputs and last[1] == version
            if any(name in stage for stage in stages):
                last = None
                continue
            if same and once:
                stages[-1].append(name)
            else:
                stages.append([name])
            last = (inputs, version) if once else None
        # Layers that the first samples don't reach come last, one by one.
        rest = [name for name in names if name not in calls]
        received.clear()
        stages += [[name] for name in rest]
        dense = {layer.name: layer for layer in self.dense_layers}
        firsts = [dense[stage[0]] for stage in stages]
        for piece in (*self.calibration, *self.heldout):
            piece.dense.layers = firsts
        for stage in stages:
            yield [names[name] for name in stage]


@torch.no_grad()
def paired_order(subject: Subject, *, room: int = 0) -> Iterator[Pair]:
    """Yield groups of layers in the order of execution, with runs of both models.

    See :func:`icbs.layerwise.execution_order.in_execution_order`: changes of a group's weights
    affect the inputs of later groups of the pruned model.

    Parameters
    ----------
    subject : Subject
        With a dense model.
    room : int, default 0
        Bytes for the inputs of a group's layers in the dense model, which are then computed by
        one run instead of one for each stage.

    Raises
    ------
    LayerError
        If the models run their layers in different orders.
    """
    assert subject.dense is not None
    pieces = list(subject.pieces(subject.samples))
    first = len(pieces)
    pieces += list(subject.pieces(subject.heldout))
    pruned = in_execution_order(subject.model, subject.layers, pieces)
    dense = in_execution_order(subject.dense, subject.dense_layers, pieces, fixed=True)
    for (layers, feed), (dense_layers, dense_feed) in zip(pruned, dense, strict=True):
        if [layer.name for layer in layers] != [layer.name for layer in dense_layers]:
            raise LayerError(
                f"layer {layers[0].name!r} of the pruned model and layer "
                f"{dense_layers[0].name!r} of the dense model run at the same place: dense must be "
                "the model that was pruned"
            )
        left = Room(room)
        both = [
            Piece(samples, run, StoredCalls(run_dense, left))
            for (samples, run), (_, run_dense) in zip(feed, dense_feed, strict=True)
        ]
        yield Pair(layers, dense_layers, both[:first], both[first:])
