"""Batches as trees: a tensor, or nested tuples, lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def tree_map(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Apply a function to every tensor of a nested tuple, list or mapping."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict) or hasattr(tree, "keys"):
        return {key: tree_map(function, tree[key]) for key in tree}
    if isinstance(tree, tuple | list):
        return _like(tree, [tree_map(function, item) for item in tree])
    return tree


def _like(tree: Any, items: list[Any]) -> Any:
    """Return items as a sequence of the type of ``tree``."""
    return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)


def tensors(tree: Any) -> list[Tensor]:
    """Return all tensors of a tree, in order."""
    found: list[Tensor] = []
    tree_map(found.append, tree)
    return found


def concatenate(trees: Sequence[Any]) -> Any:
    """Concatenate trees of equal structure along the first dimension of their tensors."""
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat(list(trees))
    if isinstance(first, dict) or hasattr(first, "keys"):
        return {key: concatenate([tree[key] for tree in trees]) for key in first}
    if isinstance(first, tuple | list):
        return _like(first, [concatenate(items) for items in zip(*trees, strict=True)])
    return first


def first_argument(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the first argument of a call, by position or by keyword."""
    return args[0] if args else next(iter(named.values()))


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model with inputs: dicts by keyword, tuples and lists by position."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)
