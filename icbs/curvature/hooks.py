"""Hooks that record the inputs and output gradients of layers.

Each call is passed to its consumer when its gradient is available, so that the gradients of all
layers are never stored at once. Autograd computes no weight gradients: the model is frozen, and
only the layers' outputs require gradients.
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
    """Calls of the layers in one forward pass, and the consumer of their gradients.

    Parameters
    ----------
    samples : int
        Samples in the forward pass.
    start : int
        Index of the first one in the batch.
    verify : bool
        Refuse a layer whose output is not the one of its kind.
    """

    def __init__(self, samples: int, start: int, *, verify: bool = False) -> None:
        self.verify = verify
        self.samples = samples
        self.start = start
        self.numbers = 0
        """Number of entries in all inputs and outputs of the layers."""
        self.received: dict[int, int] = {}
        """Bytes of the inputs' storages, by address."""
        # Added to every layer output, so that one autograd.grad call reaches all of them, also if
        # other tensors require gradients (inputs, embeddings, a soft prompt).
        self.anchor = torch.zeros((), requires_grad=True)
        self._sink: Sink | None = None
        self._scale = 1.0

    def record(self, layer: Layer, inputs: Tensor, output: Tensor) -> Tensor:
        """Record a call; return the output with a hook for its gradient."""
        if not inputs.numel():  # an expert without samples
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

        # Registered now, so that it gets the gradient of this output even if an in-place
        # activation overwrites it.
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
            features = inputs.to(delta.dtype)
            self._sink(layer, Call(layer.kind, features, delta, self.samples, self.start))

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
        """Backpropagate the samples' total loss; pass each call with its gradient to ``sink``.

        Parameters
        ----------
        total : Tensor, shape ()
        sink : callable
            ``sink(layer, call)``, last layers first, once for each call of a layer. Calls
            that the loss does not depend on are omitted.
        again : bool, default False
            Retain the graph for another backward pass.
        scale : float, default 1
            Factor on the loss within the backward pass, against underflow in float16.
        weights : sequence of Tensor, optional
            Further leaves to differentiate with respect to.

        Returns
        -------
        list of Tensor or None
            Gradients of ``weights`` by autograd, times ``scale``; None for weights that the loss
            does not depend on.
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
        """Find a loss scale (a power of two) for which no gradient of the layers overflows.

        Costs one backward pass for each scale that is tried; usually one.
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
    """Set ``requires_grad`` of all parameters to False within the context."""
    asked = [p for p in model.parameters() if p.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_()


def _wide(tensor: Tensor) -> torch.dtype:
    """Return the type of a tensor, float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)
