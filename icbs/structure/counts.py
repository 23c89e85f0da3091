"""Parameters and multiply-accumulates of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from icbs.data.pytree import call
from icbs.model.modes import evaluation_mode


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
    counter = FlopCounterMode(display=False)
    # Fused kernels of attention on a CPU are not counted.
    with evaluation_mode(model) as plain, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
        call(plain, inputs)
    return Counts(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)
