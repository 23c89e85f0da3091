"""Tests of dimensions on a call of the model: closed groups, and a trial cut."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call
from icbs.structure.cutting import check_kept, misfit, remove_groups
from icbs.structure.dimension import Dimension
from icbs.structure.gating import closed, undisturbed
from icbs.structure.outputs import output_tensors

ROUNDING = {torch.float16: 0.25, torch.bfloat16: 0.25}
"""Largest difference of the outputs of a cut and a closed model, as a share of the largest output,
by type; 0.01 for others. A narrower product is summed in another order."""
log = logging.getLogger("icbs")


def divide(
    model: nn.Module, inputs: Any, dimensions: Sequence[Dimension]
) -> tuple[list[Dimension], dict[str, str]]:
    """Divide dimensions into those that can be cut, and those that can't with the reason.

    Closed groups must not reach the outputs by another way, and a model without some groups must
    run and compute what the model with these groups closed computes. All dimensions are tested at
    once, and those of a failed test in halves.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode. Not changed.
    inputs
        Inputs of a call.
    dimensions : sequence of Dimension

    Returns
    -------
    passed : list of Dimension
    failed : dict of str to str
        Name → reason.
    """
    if not dimensions:
        return [], {}
    if not (reason := _problem(model, inputs, dimensions)):
        return list(dimensions), {}
    if len(dimensions) == 1:
        return [], {dimensions[0].name: reason}
    middle = len(dimensions) // 2
    passed, failed = divide(model, inputs, dimensions[:middle])
    more, others = divide(model, inputs, dimensions[middle:])
    return passed + more, failed | others


def _problem(model: nn.Module, inputs: Any, dimensions: Sequence[Dimension]) -> str:
    """Return why some dimensions can't be cut; empty if they can."""
    for dimension in dimensions:
        if wrong := misfit(model, dimension):  # before a kernel reads out of range
            return f"the dependency graph counts wrong: {wrong}"
    try:
        if not undisturbed(model, inputs, dimensions):
            return "something else reads them"
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        return f"a call with some of them closed fails: {_line(error)}"
    more = _some(dimensions, 0)
    less = _some(dimensions, 1)
    return _cut_problem(model, inputs, dimensions, more) or _cut_problem(
        model, inputs, dimensions, less
    )


@torch.no_grad()
def _cut_problem(
    model: nn.Module, inputs: Any, dimensions: Sequence[Dimension], kept: dict[str, Tensor]
) -> str:
    """Cut a copy that shares its weights, and compare its outputs with those of closed groups."""
    try:
        small = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    except Exception as error:
        log.info("the model can't be copied for a trial cut: %s", _line(error))
        return ""
    with closed(model, dimensions, kept):
        expected = output_tensors(call(model, inputs))
    try:
        remove_groups(small, dimensions, kept, check_kept(small, dimensions, kept))
        found = output_tensors(call(small, inputs))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        return f"the model can't run without some of them: {_line(error)}"
    types = [p.dtype for p in model.parameters()]
    share = max((ROUNDING.get(kind, 0.01) for kind in types), default=0.01)
    if len(found) != len(expected) or not all(
        _agree(a, b, share) for a, b in zip(expected, found, strict=True)
    ):
        return "without some of them the model computes something else than with them at zero"
    return ""


def _some(dimensions: Sequence[Dimension], first: int) -> dict[str, Tensor]:
    """Keep about half of the groups of each dimension, evenly spread; a single one is kept.

    The numbers have no common factor with those of all groups, so that no fixed size in the
    model's code divides both. They differ between dimensions, which may depend on each other:
    above and below half in turn, and the other way round for the other value of ``first`` (a
    single group that is left may be broadcast).
    """
    kept = {}
    for place, dimension in enumerate(dimensions, first):
        count = dimension.groups
        if count < 2:
            kept[dimension.name] = torch.ones(count, dtype=torch.bool)
            continue
        step = 1 if place % 2 == 0 else -1
        some = min(count - 1, count // 2 + 1) if step > 0 else count // 2
        while gcd(some, count) > 1:
            some += step
        places = torch.arange(count + 1) * some // count
        kept[dimension.name] = places[1:] > places[:-1]
    return kept


def _agree(expected: Tensor, found: Tensor, share: float) -> bool:
    if expected.shape != found.shape:
        return False
    size = expected.double().abs().max() if expected.numel() else torch.zeros(())
    error = (expected.double() - found.double()).abs()
    return not error.numel() or bool(error.max() <= share * size + 1e-6)


def _line(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
