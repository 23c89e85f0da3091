"""Discovery of the dimensions of a model that can be cut."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from icbs.data.pytree import call
from icbs.errors import LayerError
from icbs.model.hooks import watch_calls
from icbs.model.modes import evaluation_mode
from icbs.structure.attention import attentions
from icbs.structure.blocks import block_dimensions
from icbs.structure.dimension import Dimension
from icbs.structure.example_inputs import example_inputs_of
from icbs.structure.graph import Graph, NormalisedError, UnfollowedError
from icbs.structure.matrices import outputs_of
from icbs.structure.trial import divide
from problems.suggest import did_you_mean

KINDS = ("heads", "neurons", "channels", "blocks")
Left = dict[str, str]
"""Parts of a model that are left whole, with the reason."""
log = logging.getLogger("icbs")


def find_dimensions(
    model: nn.Module, example_inputs: Any = None, kinds: Sequence[str] = ("heads", "neurons")
) -> list[Dimension]:
    """Find the dimensions of a model that can be cut, in the model's order.

    Heads are found by the names of projections, neurons and channels by the dependency graph of
    Torch-Pruning. Every dimension is then tested on the inputs: a closed group must not reach
    the outputs by another way, and a copy of the model that is cut must run and compute the same
    (a fixed size in the model's code, such as ``x.view(-1, 16 * 5 * 5)``, doesn't allow it).
    Modules that are called more than once, share their weights, or can't be followed are left
    whole and logged with the reason.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    example_inputs : optional
        Inputs of a call: a dict by keyword, a tuple or list by position. None for a small random
        input if the model says its shape (transformers, or a linear first layer).
    kinds : sequence of str
        Of ``heads``, ``neurons``, ``channels`` and ``blocks``.

    Returns
    -------
    list of Dimension

    Raises
    ------
    LayerError
        If a kind is unknown, example inputs are needed, or no dimension is found.
    MissingPackageError
        If neurons or channels are asked for and torch-pruning is not installed.
    """
    found, left = survey_dimensions(model, example_inputs, kinds)
    for name, reason in left.items():
        log.info("left whole: %s (%s)", name, reason)
    if not found:
        raise LayerError(
            f"the model has no {' or '.join(kinds)} that can be cut; "
            "see the log for the modules that are left whole"
        )
    return found


def survey_dimensions(
    model: nn.Module, example_inputs: Any = None, kinds: Sequence[str] = ("heads", "neurons")
) -> tuple[list[Dimension], Left]:
    """Find the dimensions that can be cut, and the parts that are left whole with the reason.

    Parameters
    ----------
    model, example_inputs, kinds
        As for :func:`find_dimensions`.

    Returns
    -------
    found : list of Dimension
        In the model's order; may be empty.
    left : dict of str to str
        Part of the model → reason.

    Raises
    ------
    LayerError
        If a kind is unknown, or example inputs are needed.
    MissingPackageError
        As for :func:`find_dimensions`.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise LayerError(
                f"kind of groups {kind!r} is unknown{did_you_mean(kind, KINDS)}; "
                f"choose from {', '.join(KINDS)}"
            )
    if example_inputs is None:
        example_inputs = example_inputs_of(model)
    left: Left = {}
    with evaluation_mode(model) as plain:
        found = _candidates(plain, example_inputs, kinds, left)
        passed, failed = divide(plain, example_inputs, found)
        left |= failed
        if "blocks" in kinds:
            inner = _candidates(plain, example_inputs, ("heads", "neurons"), {})
            passed += block_dimensions(plain, example_inputs, inner, left)
    return passed, left


def _candidates(model: nn.Module, inputs: Any, kinds: Sequence[str], left: Left) -> list[Dimension]:
    single = _single(model, inputs)
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    known = list(attentions(model))
    found = []
    if "heads" in kinds:
        for attention in known:
            reasons = [f"{n} {single[n]}" for n in attention.modules if n in single]
            reasons += [f"{name} has an entry per head" for name in attention.entries]
            if reasons:
                left[f"{attention.name} heads"] = "; ".join(reasons)
            else:
                found.append(attention.dimension())
    if "neurons" in kinds or "channels" in kinds:
        heads = {name for attention in known for name in attention.modules[:-1]}
        for dimension in _graph_dimensions(model, inputs, single, heads, left):
            if hasattr(model, "config") and not _repeated(dimension):
                left[dimension.name] = "the configuration has no such width"
            elif dimension.kind in kinds:
                found.append(dimension)
    return sorted(found, key=lambda dimension: order[dimension.writers[0].module])


def _repeated(dimension: Dimension) -> bool:
    """Whether a dimension is inside a numbered layer."""
    return any(part.isdigit() for part in dimension.writers[0].module.split("."))


def _graph_dimensions(
    model: nn.Module, inputs: Any, single: dict[str, str], heads: set[str], left: Left
) -> Iterator[Dimension]:
    graph = Graph(model, inputs)
    done: set[str] = set(heads)
    normalised: dict[str, str] = {}
    for name, module in model.named_modules():
        if not outputs_of(module) or name in done:
            continue
        done.add(name)
        try:
            dimension = graph.dimension(name)
            if dimension is None:
                continue
            parts = (*dimension.writers, *dimension.readers, *dimension.between)
            if reasons := [f"{p.module} {single[p.module]}" for p in parts if p.module in single]:
                raise UnfollowedError("; ".join(dict.fromkeys(reasons)))
        except NormalisedError as error:
            normalised[name] = str(error)
            continue
        except UnfollowedError as error:
            left[f"outputs of {name}"] = str(error)
            continue
        done |= {writer.module for writer in dimension.writers}
        yield dimension
    if normalised:
        name, reason = next(iter(normalised.items()))
        more = f" and {len(normalised) - 1} more modules" if len(normalised) > 1 else ""
        left[f"outputs of {name}{more}"] = reason


def _single(model: nn.Module, inputs: Any) -> dict[str, str]:
    """Return the modules that can't be cut alone, with the reason."""
    found = {}
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        for name in names[1:] and names:
            found[name.rpartition(".")[0]] = f"shares its weights ({', '.join(names)})"
    for name, count in _calls(model, inputs).items():
        if count > 1:
            found[name] = f"is called {count} times"
    return found


def _calls(model: nn.Module, inputs: Any) -> Counter[str]:
    """Count the calls of each module with weights."""
    calls: Counter[str] = Counter()

    own = {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    with torch.no_grad(), watch_calls(own, after=lambda name, *_: calls.update([name])):
        call(model, inputs)
    return calls
