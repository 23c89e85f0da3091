"""Selection of the layers to prune by patterns, with checks before any work."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import LayerSettings
from icbs.errors import LayerError
from icbs.model.adapters import adapters_in, check_adapters
from icbs.model.kinds import kind_of, known_types
from icbs.model.layer import Layer
from icbs.model.plain import check_weight, check_writable, storage_problem
from icbs.model.wrappers import modules_of
from problems.suggest import did_you_mean

EVERYTHING = ("*", "**", "re:.*")
HEAD = "the output embedding; name it in include to prune it"
ADAPTER = "part of an adapter"
NOT_CALLED = "a part of nn.MultiheadAttention, which uses its weight without calling it"
_ANY_TYPE = (object, nn.Module)
log = logging.getLogger("icbs")


def find_layers(model: nn.Module, config: LayerSettings) -> list[Layer]:
    """Return the layers to prune, in the model's own order.

    The output layer of a language model (``lm_head``, or whatever the model calls its
    output embeddings), weights tied to an embedding, adapters, and the output projection of
    ``nn.MultiheadAttention`` are left dense, and logged, unless a pattern other than ``*``
    names them. Names don't include wrappers (see :func:`icbs.model.wrappers.modules_of`).

    Raises
    ------
    LayerError
        If a pattern matches nothing or only unsupported modules; if weights are shared
        between modules, quantised, computed, not loaded, not finite or read-only; if a
        density prunes nothing or everything of a layer; or if N:M does not divide a width.
    """
    check_writable(model)
    check_adapters(model)
    modules = modules_of(model)
    known = {name: m for name, m in modules.items() if kind_of(m) is not None}
    for pattern in [*config.include, *config.exclude, *config.densities]:
        _check_pattern(pattern, modules, known)
    excluded = _excluded_by_default(model, modules, known)
    chosen = []
    for name in known:
        module = known[name]
        if not matches_any(name, module, config.include):
            continue
        if matches_any(name, module, config.exclude):
            continue
        if density_of(name, module, config) == 1:
            log.info("%s is left dense: its density in densities is 1", name)
            continue
        if name in excluded and not _included_by_name(config.include, name, excluded, known):
            if excluded[name] is not ADAPTER:  # there are many: see Coverage.report
                log.info("%s is left dense: it is %s", name, excluded[name])
            continue
        chosen.append(name)
    if not chosen:
        raise LayerError(
            f"include={config.include} and exclude={config.exclude} leave no layer to prune; "
            f"the model's prunable layers are: {_listed(known)}"
        )
    check_shared(model, known, chosen)
    for name in chosen:
        check_weight(name, known[name])
        if excluded.get(name) is NOT_CALLED:
            raise LayerError(
                f"layer {name!r} never runs: it is {NOT_CALLED}; leave it out of include, or add "
                "it to exclude"
            )
    layers = [
        Layer.of(name, known[name], density_of(name, known[name], config) or config.density)
        for name in chosen
    ]
    for layer in layers:
        _check_layer(layer)
    if config.pattern is not None:
        config.pattern.check({layer.name: layer.shape[1] for layer in layers})
    return layers


def layers_named(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """Return layers by name, in the model's own order, with the checks of :func:`find_layers`.

    Raises
    ------
    LayerError
        If a module is missing, of another type, or shares its weights; if weights are quantised,
        computed, not loaded, not finite or read-only.
    """
    check_writable(model)
    check_adapters(model)
    modules = modules_of(model)
    if absent := [name for name in names if name not in modules]:
        raise LayerError(f"the model has no module {', '.join(map(repr, absent))}")
    chosen = [name for name in modules if name in set(names)]
    check_shared(model, modules, chosen)
    for name in chosen:
        check_weight(name, modules[name])
    layers = [Layer.of(name, modules[name], 1.0) for name in chosen]
    for layer in layers:
        _check_finite(layer)
    return layers


def _included_by_name(
    include: Sequence[str], name: str, excluded: dict[str, str], known: dict[str, nn.Module]
) -> bool:
    """Whether a pattern asks for a layer that is left dense by default.

    Any pattern but ``*`` asks for an output embedding; a pattern asks for other such layers only
    if it matches no layer that is pruned by default.
    """
    own = [p for p in include if p not in EVERYTHING and matches(name, known[name], p)]
    if excluded[name] is HEAD:
        # A type is not a name: Linear asks for linear layers, not for the head among them.
        return any(fnmatchcase(name, p) or p.startswith("re:") for p in own)
    return any(
        all(other in excluded for other, module in known.items() if matches(other, module, p))
        for p in own
    )


def _excluded_by_default(
    model: nn.Module, modules: dict[str, nn.Module], known: dict[str, nn.Module]
) -> dict[str, str]:
    """Map the layers that are left dense unless a pattern names them to their descriptions."""
    heads, adapters = _output_layers(model, known), adapters_in(model)
    attention = nn.MultiheadAttention
    not_called = {
        id(module.out_proj)
        for module in modules.values()
        if isinstance(module, attention) and type(module).forward is attention.forward
    }
    found = {}
    for name, module in known.items():
        if name in heads:
            found[name] = HEAD
        elif module in adapters:
            found[name] = ADAPTER
        elif id(module) in not_called:
            found[name] = NOT_CALLED
    return found


def _output_layers(model: nn.Module, known: dict[str, nn.Module]) -> set[str]:
    """Return the layers that compute a vocabulary's logits, or share its embedding."""
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


def matches(name: str, module: nn.Module, pattern: str) -> bool:
    """Whether a pattern matches a module.

    Parameters
    ----------
    name : str
    module : nn.Module
    pattern : str
        A glob on the name; a regular expression on the name, after ``re:``; or the name of
        the module's type or of a base class of it, such as ``Conv2d``.
    """
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    types = (kind.__name__ for kind in type(module).__mro__ if kind not in _ANY_TYPE)
    return fnmatchcase(name, pattern) or pattern in types


def matches_any(name: str, module: nn.Module, patterns: Sequence[str]) -> bool:
    """Whether any of several patterns matches a module."""
    return any(matches(name, module, pattern) for pattern in patterns)


def density_of(name: str, module: nn.Module, config: LayerSettings) -> float | None:
    """Return a layer's density by the last matching pattern of ``densities``; None without."""
    found = [d for pattern, d in config.densities.items() if matches(name, module, pattern)]
    return found[-1] if found else None


def _check_pattern(
    pattern: str, modules: dict[str, nn.Module], known: dict[str, nn.Module]
) -> None:
    try:
        hits = [name for name, module in modules.items() if matches(name, module, pattern)]
    except re.error as error:
        raise LayerError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if not hits:
        raise LayerError(
            f"pattern {pattern!r} matches no module, by name or type"
            f"{did_you_mean(pattern, [*known, *_types(known)])}; the prunable layers are: "
            f"{_listed(known)}"
        )
    if not any(name in known for name in hits):
        kinds = sorted({type(modules[name]).__name__ for name in hits})
        raise LayerError(
            f"pattern {pattern!r} matches only {', '.join(kinds)}, and only {known_types()} can be "
            f"pruned; the prunable layers are: {_listed(known)}"
        )


def _types(modules: dict[str, nn.Module]) -> set[str]:
    return {type(module).__name__ for module in modules.values()}


def check_shared(model: nn.Module, known: dict[str, nn.Module], chosen: list[str]) -> None:
    """Refuse layers that share their weights with another module.

    Raises
    ------
    LayerError
    """
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(_storage_id(parameter), []).append(name)
    for name in chosen:
        weight: Any = known[name].weight
        shared = owners.get(_storage_id(weight), [])
        if len(shared) > 1:
            raise LayerError(
                f"layer {name!r} shares its weights ({', '.join(shared)}); "
                f"a mask on one would prune the other: add {name!r} to exclude"
            )


def _storage_id(weight: Tensor) -> int:
    """Return a weight's address in memory; the id of the object where it has none."""
    lazy = isinstance(weight, nn.parameter.UninitializedParameter)
    plain = not lazy and type(weight.data) is Tensor and storage_problem(weight) is None
    return weight.data_ptr() if plain and weight.numel() else id(weight)


def _check_layer(layer: Layer) -> None:
    _check_finite(layer)
    if not 0 < layer.num_keep < layer.size:
        raise LayerError(
            f"density {layer.density} keeps {layer.num_keep} of the {layer.size} weights of "
            f"{layer.name!r}; choose one that leaves both kept and pruned weights, or exclude it"
        )


def _check_finite(layer: Layer) -> None:
    if not torch.isfinite(layer.dense).all():
        raise LayerError(
            f"layer {layer.name!r} has weights that are NaN or infinite; "
            "repair the model, or exclude the layer"
        )


def _listed(names: dict[str, nn.Module], most: int = 20) -> str:
    shown = list(names)[:most]
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return (", ".join(shown) or "none") + more
