"""Check of per-sample gradients against autograd, on a few samples, before a run.

Three computations must agree, for every layer:

- *together*: the calls of the layers in one forward and backward pass, split into samples, as
  in the passes of a run;
- *apart*: the same, one sample at a time;
- *autograd*: the gradient of ``loss(model(inputs), targets)`` with respect to the weights.

The differences identify the error. If the sums over samples differ between together and apart,
the loss (or the model) couples samples; if only the rows differ, a layer's input does not have
the samples in its first dimension; if autograd differs from the sum of the calls, the weight is
also used outside of its layer. Gradients are compared by random projections, a few numbers for
each sample and layer, so that no full gradient of a sample is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icbs import parallel
from icbs.curvature.hooks import hooked
from icbs.curvature.layer_io import Call
from icbs.curvature.means import check_finite
from icbs.data.objective import RANDOM, REMEDY, Objective
from icbs.data.samples import Samples
from icbs.errors import DataError, LayerError
from icbs.model.layer import Layer

PROBES = 8
"""Number of projections of a gradient."""
MOST = 32
"""Maximum number of samples to check."""
CHEAP = 1 << 26
"""Bytes of activations that the check may always use, regardless of the size of a pass."""


def count_samples(activations: int, planned: int, available: int) -> int:
    """Choose the number of samples to check: a small share of a pass, more if they are cheap.

    Parameters
    ----------
    activations : int
        Bytes per sample in a forward and backward pass.
    planned : int
        Samples of a pass.
    available : int
        Number of samples in all.
    """
    return min(max(2, planned // 32, CHEAP // activations), MOST, available)


def check_gradients(
    model: nn.Module,
    layers: Sequence[Layer],
    objective: Objective,
    samples: Samples,
    batch_size: int,
    *,
    rows: bool = True,
) -> None:
    """Refuse a loss, a layout or a use of weights for which gradients would be wrong.

    Costs a forward and backward pass over the samples, and one for each sample separately.

    Parameters
    ----------
    model, layers, objective
        The model, in evaluation mode.
    samples : Samples
        Chosen to be as different as possible; see :func:`icbs.data.samples.diverse_samples`.
    batch_size : int
        Samples in one forward pass, as in the passes of the run. With 1, samples
        can't be mixed.
    rows : bool, default True
        Whether the run uses the gradients of single samples, and not only their sum.

    Raises
    ------
    DataError
        If the loss is neither a mean nor a sum over samples, if a layer's input does
        not have the samples in its first dimension, or if the model is random.
    LayerError
        If a layer's weight is also used outside of the layer.
    """
    check = _Check(model, layers, objective, batch_size, rows)
    fault = _of_first(check.fault(samples))
    if fault is None:
        return
    # For samples that the model fits perfectly, gradients consist of rounding errors. Repeat with
    # permuted targets: a real error remains.
    swapped = Samples(samples.inputs, samples.targets.roll(1, 0))
    try:
        again = check.fault(swapped)
    except Exception:  # a loss may raise anything for mismatched targets
        again = fault
    if _of_first(again) is not None:
        raise _of_first(check.noise(samples)) or fault


def _of_first(fault: Exception | None) -> Exception | None:
    """Use the result of the first process in all: rounding may differ between processes."""
    return parallel.broadcast_from_rank0(lambda: fault)


@dataclass
class Gradients:
    """Projected gradients of some samples, by layer name."""

    rows: dict[str, Tensor]
    """Per-sample gradients from the calls of the layer, shape (N, probes)."""
    whole: dict[str, Tensor]
    """Gradient summed over all samples, by autograd, shape (probes,)."""


class _Check:
    """The three computations and their tolerances."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        objective: Objective,
        batch_size: int,
        rows: bool,
    ) -> None:
        self.model, self.layers, self.objective = model, layers, objective
        self.batch_size, self.rows = batch_size, rows
        generator = torch.Generator().manual_seed(0)
        self.probes = {layer.name: _probes(layer, generator) for layer in layers}
        floats = [p for p in model.parameters() if p.is_floating_point()]
        half = objective.precision != "float32" or any(p.element_size() < 4 for p in floats)
        # Errors are relative to the layer's gradient, or to `floor` times the largest one if it is
        # smaller than that (it may be rounding error). Together and apart use different kernels
        # in the whole model; autograd uses the same inputs and output gradients as the calls.
        self.apart, self.autograd, self.floor = (0.2, 0.05, 0.02) if half else (0.02, 0.005, 1e-4)

    def fault(self, samples: Samples) -> Exception | None:
        """Compare the three computations; return the error to raise."""
        together = self.gradients(samples, self.batch_size)
        for name, rows in together.rows.items():
            check_finite(name, rows)
        apart = together
        if self.batch_size > 1:
            apart = self.gradients(samples, 1, autograd=False)
        sums = {name: rows.sum(dim=0) for name, rows in together.rows.items()}
        own = {name: rows.sum(dim=0) for name, rows in apart.rows.items()}
        sizes = self._sizes(apart)
        if off := _off(sums, own, sizes, self.apart):
            return DataError(
                f"the gradient of {len(samples)} samples together is not the sum of their own: "
                f"{_listed(off)}; {REMEDY}"
            )
        if self.rows and (off := _off(together.rows, apart.rows, sizes, self.apart)):
            return DataError(
                "the inputs of some layers are not one sample after another in the first "
                "dimension (time first, or views joined by torch.cat), so that gradients of single "
                f"samples would be mixed up: {_listed(off)}; put the sample first (batch_first, "
                "torch.stack with dim=1), run one sample at a time (batch_size=1), or exclude "
                "these layers"
            )
        if off := _off(together.whole, sums, self._sizes(together), self.autograd):
            return LayerError(
                "autograd gives some weights another gradient than the calls of their layers do: "
                f"{_listed(off)}; a weight that is used outside of its layer too (tied in a "
                "function, called functionally, in a regulariser) can't be pruned: call the layer "
                "itself, keep the term out of the loss, or exclude these layers"
            )
        return None

    def noise(self, samples: Samples) -> Exception | None:
        """Compare two equal computations; return the error to raise."""
        one, two = (self.gradients(samples, self.batch_size, autograd=False) for _ in range(2))
        if off := _off(one.rows, two.rows, self._sizes(one), self.apart / 4):
            return DataError(
                "two passes over the same samples give different gradients: "
                f"{_listed(off)}; {RANDOM}"
            )
        return None

    def _sizes(self, gradients: Gradients) -> dict[str, float]:
        """Return the reference size of errors, by layer name."""
        sizes = {name: float(rows.norm()) for name, rows in gradients.rows.items()}
        floor = self.floor * max(sizes.values())
        return {name: max(size, floor) for name, size in sizes.items()}

    def gradients(self, samples: Samples, size: int, *, autograd: bool = True) -> Gradients:
        """Compute the gradients of samples, ``size`` of them in one forward pass."""
        shape = len(samples), PROBES
        rows = {layer.name: torch.zeros(shape, dtype=torch.float64) for layer in self.layers}
        whole = {layer.name: torch.zeros(PROBES, dtype=torch.float64) for layer in self.layers}
        asked = self.layers if autograd else []
        weights = [layer.kind.module.weight for layer in asked]

        def sink(layer: Layer, call: Call) -> None:
            found = call.projected(*self.probes[layer.name]).double().cpu()
            rows[layer.name][call.start : call.start + call.samples] += found

        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            with hooked(self.model, self.layers, len(piece), start) as taps, _asking(asked):
                outputs = self.objective.run(self.model, piece.inputs)
                total = self.objective.total(outputs, piece.targets)
                # In float16 sums over samples overflow before their terms do.
                half = self.objective.precision == "float16"
                scale = max(1.0, taps.find_scale(total) / 64) if half else 1.0
                found = taps.send_back(total, sink, scale=scale, weights=weights)
            for layer, gradient in zip(asked, found, strict=True):
                if gradient is not None:
                    projected = _projected(layer, gradient, *self.probes[layer.name])
                    whole[layer.name] += projected.double().cpu() / scale
        return Gradients(rows, whole)


def _off(
    found: dict[str, Tensor],
    expected: dict[str, Tensor],
    sizes: dict[str, float],
    tolerance: float,
) -> dict[str, float]:
    """Return the relative errors above the tolerance, by layer name."""
    errors = {}
    for name, size in sizes.items():
        # A weight that is used only elsewhere has no calls, or calls without a gradient.
        size = max(size, float(found[name].norm()))
        error = float((found[name] - expected[name]).norm())
        if error > tolerance * size:
            errors[name] = error / size
    return errors


def _listed(errors: dict[str, float], most: int = 5) -> str:
    """Format layer names with their errors."""
    shown = [f"{name!r} is off by {error:.0%}" for name, error in list(errors.items())[:most]]
    more = f" (and {len(errors) - most} more)" if len(errors) > most else ""
    return ", ".join(shown) + more


def _probes(layer: Layer, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random vectors that project a gradient on both sides, outputs and inputs."""
    wide = torch.promote_types(layer.dense.dtype, torch.float32)
    sizes = layer.shape[0], layer.shape[1] * layer.kind.groups
    left, right = (torch.randn(size, PROBES, generator=generator, dtype=wide) for size in sizes)
    return left.to(layer.dense.device), right.to(layer.dense.device)


def _projected(layer: Layer, gradient: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Project a gradient in the module's shape, as :meth:`Trace.projected` projects rows."""
    groups = layer.kind.groups
    matrix = layer.kind.matrix(gradient).to(left.dtype).unflatten(0, (groups, -1))
    projected = matrix @ right.unflatten(0, (groups, -1))
    return (projected.flatten(0, 1) * left).sum(dim=0)


@contextmanager
def _asking(layers: Sequence[Layer]) -> Iterator[None]:
    """Set ``requires_grad`` on the weights of layers within the context."""
    modules = [layer.kind.module for layer in layers]
    asked = [module.weight.requires_grad for module in modules]
    hooks = [module.register_forward_pre_hook(_usable) for module in modules]
    for module in modules:
        module.weight.requires_grad_()
    try:
        yield
    finally:
        for module, before, hook in zip(modules, asked, hooks, strict=True):
            module.weight.requires_grad_(before)
            hook.remove()


def _usable(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy inputs made under inference_mode, which autograd can't save for backward."""
    return tuple(x.clone() if isinstance(x, Tensor) and x.is_inference() else x for x in inputs)
