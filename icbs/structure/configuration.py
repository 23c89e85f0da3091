"""Configurations of transformers that fit a cut model, or the reason why none does."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icbs.errors import ModelError
from icbs.structure.attention import attentions
from icbs.structure.dimension import Dimension

NEURONS = (
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "hidden_dim",
    "d_ff",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "d_inner",
    "ffn_hidden_size",
)
"""Entries of known configurations for the number of neurons of a layer."""
HEADS, GROUPS, SIZE = "num_attention_heads", "num_key_value_heads", "head_dim"


def fit_configuration(
    model: Any, dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]
) -> None:
    """Put the widths in a model's configuration right, or make ``save_pretrained`` refuse.

    A configuration fits if a model made of it has the shapes of this one. A model without a
    configuration is left as it is.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "save_pretrained"):
        return
    model.__dict__.pop("save_pretrained", None)  # of a model that was cut before
    problem = _uneven(dimensions, kept)
    if not problem:
        candidate = _candidate(model, config, dimensions, kept)
        problem = _misfit(model, candidate)
        if not problem:
            _adopt(config, candidate)
            return
    message = (
        f"the configuration can't hold the widths of the cut model: {problem}; save it with "
        "icbs.structure.save_cut, which load_cut reads"
    )
    model.save_pretrained = functools.partial(_refuse, message)


def refusal(model: nn.Module) -> str | None:
    """Return why ``save_pretrained`` of a cut model refuses; None if it doesn't."""
    own = vars(model).get("save_pretrained")
    return str(own.args[0]) if isinstance(own, functools.partial) else None


def fits(model: Any) -> bool:
    """Whether a model made of the configuration has the parameters of this one."""
    return not _misfit(model, model.config)


def _refuse(message: str, *_: Any, **__: Any) -> None:
    raise ModelError(message)


def _uneven(dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]) -> str:
    """Describe kept numbers that differ between layers; empty if there are none."""
    for kind in ("heads", "neurons"):
        counts = {
            d.name: int(kept[d.name].sum()) if d.name in kept else d.groups
            for d in dimensions
            if d.kind == kind and not _in_removed_block(d, dimensions, kept)
        }
        if len(set(counts.values())) > 1:
            shown = [f"{name.removesuffix(' ' + kind)}: {n}" for name, n in counts.items()]
            more = f", … ({len(shown)} layers)" if len(shown) > 4 else ""
            return (
                f"it has one number of {kind} for all layers, and they differ "
                f"({', '.join(shown[:4])}{more}); prune with an allocation by layer, so that "
                "all layers keep as many"
            )
    return ""


def _in_removed_block(
    dimension: Dimension, dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]
) -> bool:
    return any(
        other.kind == "blocks"
        and other.name in kept
        and not kept[other.name].any()
        and dimension.name.startswith(other.name.removesuffix("blocks").strip() + ".")
        for other in dimensions
    )


def _candidate(
    model: nn.Module, config: Any, dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]
) -> Any:
    """Return a copy of the configuration with the widths of the cut model."""
    new = copy.deepcopy(config)
    if any(d.kind == "heads" and d.name in kept for d in dimensions):
        for attention in attentions(model):
            setattr(new, HEADS, attention.heads)
            if hasattr(config, GROUPS):
                setattr(new, GROUPS, attention.groups)
            new.head_dim = attention.size
            break
    for dimension in dimensions:
        if dimension.kind == "neurons" and dimension.name in kept:
            if _in_removed_block(dimension, dimensions, kept):
                continue
            # None stands for a multiple of another width.
            for name in NEURONS:
                if getattr(config, name, 0) in (None, dimension.groups):
                    setattr(new, name, int(kept[dimension.name].sum()))
    return new


def _misfit(model: nn.Module, config: Any) -> str:
    """Describe the first weight whose shape differs in a model made of a configuration."""
    try:
        with torch.device("meta"):
            fresh = type(model)(config)
    except Exception as error:
        return f"{type(model).__name__} can't be made with them ({error})"
    own = {name: value.shape for name, value in model.state_dict().items()}
    made = {name: value.shape for name, value in fresh.state_dict().items()}
    for name, shape in own.items():
        if made.get(name) != shape:
            there = tuple(made[name]) if name in made else "missing"
            return f"{name} has shape {tuple(shape)} and would be {there}"
    return ""


def _adopt(config: Any, candidate: Any) -> None:
    """Copy changed entries in place: modules hold references to the configuration."""
    for name, value in vars(candidate).items():
        if not name.startswith("_") and getattr(config, name, None) is not value:
            setattr(config, name, value)
