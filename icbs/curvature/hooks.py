"""Listening to layers: what each call receives, and the gradient that comes back to it.

Every call is handed on as soon as its gradient is there, so that nothing need be held for
all layers at once. Weight gradients are never computed by autograd: the model is frozen,
and the graph hangs on the layers' outputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icbs.curvature.layer_io import Call
from icbs.errors import DataError, LayerError
from icbs.model.calls import check_explained, inputs_and_output
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer

SCALE = 2.0**14
"""Factor on the loss in float16, unless gradients overflow."""
Sink = Callable[[Layer, Call], None]


class LayerHooks:
    """Calls of the layers in one forward pass, and where their gradients go.

    Parameters
    ----------
    samples : int
        Samples in the forward pass.
    start : int
        Where they begin in the batch.
    verify : bool
        Refuse a layer that does something else than its kind.
    """

    def __init__(self, samples: int, start: int, *, verify: bool = False) -> None:
        self.verify = verify
        self.samples = samples
        self.start = start
        self.numbers = 0
        """Entries of all inputs and outputs of the layers."""
        self.received: dict[int, int] = {}
        """Bytes of the inputs' storages, by address."""
        # Whatever a layer returns hangs on it, so that a gradient of it reaches them all, also
        # where something else upstream asks for one (inputs, embeddings, a soft prompt).
        self.anchor = torch.zeros((), requires_grad=True)
        self._sink: Sink | None = None
        self._scale = 1.0

    def record(self, layer: Layer, inputs: Tensor, output: Tensor) -> Tensor:
        """Take note of a call; returns the output, listened to."""
        if not inputs.numel():  # an expert that is called with nothing
            return output
        if inputs.is_inference():
            raise LayerError(
                f"the inputs of layer {layer.name!r} are made under torch.inference_mode, which "
                "no gradient can be taken of; make them under torch.no_grad, or exclude it"
            )
        self._check(layer, inputs, output)
        if self.verify:
            check_explained(layer, inputs, output, self.samples)
        self.numbers += inputs.numel() + output.numel()
        storage = inputs.untyped_storage()
        self.received[storage.data_ptr()] = storage.nbytes()
        output = output + self.anchor
        if not output.requires_grad:
            raise LayerError(
                f"layer {layer.name!r} runs where the model switches gradients off "
                "(torch.no_grad, inference_mode, or checkpointing with use_reentrant=True); "
                "switch them on there, or exclude it"
            )
        inputs = inputs.detach()
        version = inputs._version

        # A hook of this moment: it gets this gradient even if an activation that works in
        # place overwrites the output.
        def hook(delta: Tensor) -> None:
            if self._sink is None:
                raise LayerError(
                    f"the model takes gradients through layer {layer.name!r} in its forward pass "
                    "(torch.autograd.grad: forces, penalties), so that its weights act in "
                    "more than its outputs; exclude it"
                )
            if inputs._version != version:
                raise LayerError(
                    f"the inputs of layer {layer.name!r} are changed in place after it has run, "
                    "so that its gradients would be wrong; change a copy, or exclude it"
                )
            delta = delta.detach().to(_wide(delta))
            if self._scale != 1.0:
                delta = delta / self._scale
            came = inputs.to(delta.dtype)
            self._sink(layer, Call(layer.kind, came, delta, self.samples, self.start))

        output.register_hook(hook)
        return output

    def send_back(
        self,
        total: Tensor,
        sink: Sink,
        *,
        again: bool = False,
        scale: float = 1.0,
        weights: Sequence[Tensor] = (),
    ) -> list[Tensor | None]:
        """Backpropagate the samples' total loss; each call goes to ``sink`` with its gradient.

        Parameters
        ----------
        total : Tensor, shape ()
        sink : callable
            ``sink(layer, call)``, last layers first, once for each call of a layer. A call
            that the loss does not depend on never comes.
        again : bool, default False
            Keep the graph for another time.
        scale : float, default 1
            Factor on the loss within the backward pass, against underflow in float16.
        weights : sequence of Tensor, optional
            Leaves that ask for a gradient, beside the calls.

        Returns
        -------
        list of Tensor or None
            Gradients of ``weights`` by autograd, times ``scale``; None where the loss does not
            depend on one.
        """
        if not total.requires_grad:
            return [None] * len(weights)
        self._sink, self._scale = sink, scale
        found = torch.autograd.grad(
            total * scale if scale != 1.0 else total,
            (self.anchor, *weights),
            retain_graph=again,
            allow_unused=True,
        )
        return list(found[1:])

    def find_scale(self, total: Tensor) -> float:
        """Find the largest power of two with which no gradient of the layers overflows.

        Costs a backward pass for each power that is too large; most often one in all.
        """
        if not total.requires_grad:
            return 1.0
        scale = SCALE
        while scale > 1.0:
            finite = [True]

            def sink(layer: Layer, call: Call, finite: list[bool] = finite) -> None:
                finite[0] = finite[0] and bool(torch.isfinite(call.deltas).all())

            self.send_back(total, sink, again=True, scale=scale)
            if finite[0]:
                break
            scale /= 4
        return scale

    def _check(self, layer: Layer, inputs: Tensor, output: Tensor) -> None:
        for tensor in (inputs, output):
            if tensor.ndim == 0 or len(tensor) % self.samples:
                raise DataError(
                    f"layer {layer.name!r} sees {tuple(tensor.shape)} for {self.samples} samples; "
                    "the sample must be the first dimension all through the model: add it to "
                    "exclude, or run one sample at a time (batch_size=1)"
                )


@contextmanager
def hooked(
    model: nn.Module,
    layers: Sequence[Layer],
    samples: int,
    start: int = 0,
    *,
    verify: bool = False,
) -> Iterator[LayerHooks]:
    """Record every call of the layers within the context; see :class:`LayerHooks`."""
    hooks = LayerHooks(samples, start, verify=verify)

    def record(number: int, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor:
        layer = layers[number]
        return hooks.record(layer, *inputs_and_output(layer, args, named, output))

    modules = {number: layer.module for number, layer in enumerate(layers)}
    with watch_calls(modules, after=record), frozen(model), torch.enable_grad():
        yield hooks


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter of a model ask for a gradient within the context."""
    asked = [p for p in model.parameters() if p.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_()


def _wide(tensor: Tensor) -> torch.dtype:
    """Float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)
