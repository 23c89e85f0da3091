"""Parameters and multiply-accumulates of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from icbs.data.pytree import call
from icbs.model.hooks import watch_calls
from icbs.model.modes import evaluation_mode, without_fast_paths


@dataclass(frozen=True)
class Counts:
    """Size of a model, and its work for one call."""

    parameters: int
    """Tied ones once."""
    macs: int
    """Multiply-accumulates of matrix products, convolutions and attention."""


def count(model: nn.Module, inputs: Any) -> Counts:
    """Count the parameters of a model, and its multiply-accumulates for a call.

    torch's own counter sees the call (``torch.utils.flop_counter``; two FLOPs are one MAC), with
    attention as two products of matrices, T² · channels each for T positions, causal or not.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    inputs
        Inputs of a call: a dict by keyword, a tuple or list by position.
    """
    with evaluation_mode(model) as plain:
        work = counted_work(plain, {}, inputs)
    return Counts(sum(p.numel() for p in model.parameters()), int(work.total))


@dataclass(frozen=True)
class Work:
    """Work of a model and of its modules for one call."""

    total: float
    """Multiply-accumulates of the model."""
    macs: dict[str, float]
    """Those within each module, with its parts, summed over its calls."""
    positions: dict[str, float]
    """Output positions of each module, summed over its calls."""

    def products(self, name: str) -> float:
        """Return the multiply-accumulates of a module without those of its parts."""
        parts = [own for own in self.macs if own.rpartition(".")[0] == name]
        return self.macs.get(name, 0.0) - sum(self.macs[own] for own in parts)


def counted_work(model: nn.Module, modules: Mapping[str, nn.Module], inputs: Any) -> Work:
    """Count the multiply-accumulates of a model and of its modules for a call, as :func:`count`.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    modules : mapping of str to nn.Module
        Names without wrappers.
    inputs
        Inputs of a call.
    """
    counter = FlopCounterMode(display=False)
    macs: dict[str, float] = {}
    positions: dict[str, float] = {}
    started: list[float] = []

    def before(name: str, args: Any, named: Any) -> None:
        started.append(counter.get_total_flops() / 2)

    def after(name: str, args: Any, named: Any, output: Any) -> None:
        macs[name] = macs.get(name, 0.0) + counter.get_total_flops() / 2 - started.pop()
        if isinstance(output, Tensor):
            channels = getattr(modules[name], "out_channels", output.shape[-1])
            positions[name] = positions.get(name, 0.0) + output.numel() / channels

    hooks = watch_calls(modules, before=before, after=after)
    # Fused kernels of attention on a CPU are not counted.
    with hooks, without_fast_paths(), sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
        call(model, inputs)
    return Work(counter.get_total_flops() / 2, macs, positions)
