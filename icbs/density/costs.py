"""Costs of a model: multiplications of its matrices for one sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from icbs.data.pytree import call
from icbs.data.samples import Samples
from icbs.model.hooks import watch_calls
from icbs.model.kinds import kind_of
from icbs.model.wrappers import modules_of


@torch.no_grad()
def count_positions(model: nn.Module, sample: Samples) -> dict[str, int]:
    """Return the number of positions at which each matrix is applied to a sample.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    sample : Samples
        One sample.

    Returns
    -------
    dict of str to int
        Name of each layer of a known kind → positions in all of its calls.
    """
    kinds = {name: kind_of(module) for name, module in modules_of(model).items()}
    known = {name: kind for name, kind in kinds.items() if kind is not None}
    found = dict.fromkeys(known, 0)

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if isinstance(output, torch.Tensor):
            found[name] += known[name].positions(output, 1).shape[1]

    with watch_calls({name: kind.module for name, kind in known.items()}, after=after):
        call(model, sample.inputs)
    return found


@torch.no_grad()
def nonzero_macs(model: nn.Module, positions: dict[str, int]) -> int:
    """Return the multiply-accumulate operations with weights other than 0, for one sample.

    Counted are the matrices of layers of known kinds, pruned or not; products of activations with
    each other, such as attention scores, are not.

    Parameters
    ----------
    model : nn.Module
    positions : dict of str to int
        See :func:`count_positions`.
    """
    modules = modules_of(model)
    counts = {name: int(modules[name].weight.count_nonzero()) for name in positions}  # type: ignore[operator]
    return sum(count * positions[name] for name, count in counts.items())
