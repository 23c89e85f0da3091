"""Which modules of a model are pruned: found by pattern, and refused by name before work."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.errors import LayerError
from icbs.layers.kinds import Kind, kind_of
from icbs.layers.layer import Layer

EVERYTHING = ("*", "**", "re:.*")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
log = logging.getLogger("icbs")


def find_layers(model: nn.Module, config: PrunerConfig) -> list[Layer]:
    """Return the layers to prune, in the model's own order.

    The output layer of a language model (``lm_head``, or whatever the model calls its
    output embeddings) and weights tied to an embedding are left dense, with a note in the
    log, unless a pattern other than ``*`` names them.

    Raises
    ------
    LayerError
        If a pattern matches nothing or only unsupported modules, if weights are shared
        between modules, quantised, computed, not loaded or not finite, or if a density
        leaves a layer empty or whole, or if N:M does not divide a width.
    """
    modules = {name: m for name, m in model.named_modules() if name}
    known = {name: m for name, m in modules.items() if kind_of(m) is not None}
    for pattern in [*config.include, *config.exclude, *config.densities]:
        _check_pattern(pattern, modules, known)
    named = [pattern for pattern in config.include if pattern not in EVERYTHING]
    heads = _output_layers(model, known)
    chosen = []
    for name in known:
        if not matches_any(name, config.include) or matches_any(name, config.exclude):
            continue
        if name in heads and not matches_any(name, named):
            log.info("%s is left dense: it is the output embedding; include names it", name)
            continue
        chosen.append(name)
    if not chosen:
        raise LayerError(
            f"include={config.include} and exclude={config.exclude} leave no layer to prune; "
            f"the model's prunable layers are: {_listed(known)}"
        )
    _check_shared(model, known, chosen)
    for name in chosen:
        _check_weight(name, known[name])
    layers = [
        Layer.of(name, known[name], density_of(name, config) or config.density) for name in chosen
    ]
    for layer in layers:
        _check_layer(layer)
    if config.pattern is not None:
        config.pattern.check({layer.name: layer.shape[1] for layer in layers})
    return layers


def _output_layers(model: nn.Module, known: dict[str, nn.Module]) -> set[str]:
    """Layers that turn hidden states into a vocabulary's logits, or share its embedding."""
    outputs = []
    for module in model.modules():
        if callable(getter := getattr(module, "get_output_embeddings", None)):
            with suppress(NotImplementedError):
                outputs.append(getter())
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    return {
        name
        for name, module in known.items()
        if name.split(".")[-1] == "lm_head"
        or any(module is output for output in outputs)
        or any(getattr(module, "weight", None) is weight for weight in embeddings)
    }


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name matches a glob, or a regular expression after ``re:``."""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    return fnmatchcase(name, pattern)


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module's name matches one of several patterns."""
    return any(matches(name, pattern) for pattern in patterns)


def density_of(name: str, config: PrunerConfig) -> float | None:
    """Return the density that ``densities`` gives a layer, by the last pattern that matches."""
    found = [d for pattern, d in config.densities.items() if matches(name, pattern)]
    return found[-1] if found else None


def _check_pattern(
    pattern: str, modules: dict[str, nn.Module], known: dict[str, nn.Module]
) -> None:
    try:
        hits = [name for name in modules if matches(name, pattern)]
    except re.error as error:
        raise LayerError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if not hits:
        raise LayerError(
            f"pattern {pattern!r} matches no module; the prunable layers are: {_listed(known)}"
        )
    if not any(name in known for name in hits):
        kinds = sorted({type(modules[name]).__name__ for name in hits})
        raise LayerError(
            f"pattern {pattern!r} matches only {', '.join(kinds)}, and what can be pruned is "
            f"{Kind.names}; the prunable layers are: {_listed(known)}"
        )


def _check_shared(model: nn.Module, known: dict[str, nn.Module], chosen: list[str]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in chosen:
        shared = owners.get(id(known[name].weight), [])
        if len(shared) > 1:
            raise LayerError(
                f"layer {name!r} shares its weights ({', '.join(shared)}); "
                f"a mask on one would prune the other: add {name!r} to exclude"
            )


def _check_weight(name: str, module: nn.Module) -> None:
    """Refuse weights that are no plain floating-point numbers in memory."""
    weight = module._parameters.get("weight")
    if weight is None:
        raise LayerError(
            f"layer {name!r} computes its weight (a parametrisation, or torch.nn.utils.prune); "
            "make it permanent, or exclude the layer"
        )
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise LayerError(
            f"layer {name!r} has no weights yet ({type(module).__name__}); run the model once, "
            "or exclude the layer"
        )
    if weight.is_meta:
        raise LayerError(
            f"layer {name!r} has its weights on the meta device: nothing was loaded; "
            "load the model onto a real device"
        )
    if weight.dtype not in FLOATS or type(weight.data) is not Tensor:
        raise LayerError(
            f"layer {name!r} has quantised weights ({type(weight.data).__name__}, "
            f"{weight.dtype}); load the model with floating-point weights, or exclude it"
        )


def _check_layer(layer: Layer) -> None:
    if not torch.isfinite(layer.dense).all():
        raise LayerError(
            f"layer {layer.name!r} has weights that are NaN or infinite; "
            "repair the model or exclude the layer"
        )
    if not 0 < layer.num_keep < layer.size:
        raise LayerError(
            f"density {layer.density} keeps {layer.num_keep} of the {layer.size} weights of "
            f"{layer.name!r}; choose one that leaves both kept and pruned weights, or exclude it"
        )


def _listed(names: dict[str, nn.Module], most: int = 20) -> str:
    shown = list(names)[:most]
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return (", ".join(shown) or "none") + more
