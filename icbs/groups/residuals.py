"""Residual streams: the module whose input is added to the output of a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call, first_argument
from icbs.model.hooks import watch_calls


@torch.no_grad()
def residual_inputs(
    model: nn.Module, inputs: Any, readers: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Find the modules whose first input is the residual of each reader.

    A reader's output y is added to a residual r if some module gets r, and a later normalisation
    gets r + y. Before the addition r is the input of a normalisation (ViT, LLaMA), or of the
    projections that write the dimension (BERT, which normalises after the addition).

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, with all groups kept.
    inputs
        Inputs of a few samples.
    readers : mapping of str to sequence of str
        Reader → modules that write its dimension.

    Returns
    -------
    dict of str to str
        Reader → module; without the readers whose output isn't added to a residual.
    """
    norms = [
        name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()
    ]
    writers = [name for own in readers.values() for name in own]
    received: dict[str, Tensor] = {}
    returned: dict[str, Tensor] = {}
    order: list[str] = []

    def note(name: str, args: Any, named: Any, output: Any) -> None:
        if name in readers:
            returned[name] = output.clone()
        else:
            received[name] = first_argument(args, named).clone()
        order.append(name)

    watched = {name: model.get_submodule(name) for name in [*norms, *writers, *readers]}
    with watch_calls(watched, after=note):
        call(model, inputs)
    found = {}
    for name, output in returned.items():
        at = order.index(name)
        before = [one for one in reversed(order[:at]) if one in received]
        after = [one for one in order[at:] if one in norms][:1]
        for one in before:
            if after and _is_sum(received[after[0]], received[one], output):
                found[name] = one
                break
    return found


def _is_sum(total: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether a tensor is the sum of two others, up to rounding."""
    if not total.shape == first.shape == second.shape:
        return False
    return bool((total - first - second).abs().max() <= 1e-5 * total.abs().max())
