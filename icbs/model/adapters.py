"""Adapters of the ``peft`` library: left dense, and saved separately from the base layers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from icbs.errors import LayerError


def base_model_of(module: nn.Module) -> nn.Module | None:
    """Return the model that a ``PeftModel`` adds adapters to; None for any other module.

    Prompts are not adapters: the ``PeftModel`` itself inserts them in its forward pass.
    """
    found: Any = module
    if _is(module, "peft.mixed_model", "PeftMixedModel"):
        return found.get_base_model()
    if not _is(module, "peft.peft_model", "PeftModel"):
        return None
    return None if found.active_peft_config.is_prompt_learning else found.get_base_model()


def base_layer_of(module: nn.Module) -> nn.Module | None:
    """Return the layer that an adapter extends; None for a module without an adapter."""
    if not _is(module, "peft.tuners.tuners_utils", "BaseTunerLayer"):
        return None
    found: Any = module
    return found.get_base_layer()


def adapters_in(model: nn.Module) -> set[nn.Module]:
    """Return all modules that belong to adapters and not to their base layers."""
    found: set[nn.Module] = set()
    for _, module, base in _adapted(model):
        found |= set(module.modules()) - set(base.modules())
    return found


def check_adapters(model: nn.Module) -> None:
    """Refuse adapters that keep the base weights from being used as they are.

    Raises
    ------
    LayerError
        For learned prompts, trained copies of whole modules, and merged adapters.
    """
    for name, module in model.named_modules():
        if _is(module, "peft.peft_model", "PeftModel") and base_model_of(module) is None:
            raise LayerError(
                "the model is a PeftModel with learned prompts, which are not pruned; prune its "
                "base model (get_base_model()), and use the prompts with the pruned model"
            )
        if _is(module, "peft.utils.other", "AuxiliaryTrainingWrapper"):
            raise LayerError(
                f"{name!r} is a trained copy of a whole module (PEFT's modules_to_save or "
                "trainable tokens); call merge_and_unload() first, and prune what it returns"
            )
    for name, module, _ in _adapted(model):
        if getattr(module, "merged", False):
            raise LayerError(
                f"the adapter of {name!r} is merged into its base layer, and unmerging it later "
                "would restore pruned weights; call merge_and_unload() or unmerge_adapter() first"
            )


def base_state(model: nn.Module) -> dict[str, Tensor] | None:
    """Return the state dict of a model without its adapters; None if it has no adapters."""
    prefixes = {name for name, _, _ in _adapted(model)}
    if not prefixes:
        return None
    found = {}
    for key, value in model.state_dict().items():
        if (name := _base_key(key, prefixes)) is not None:
            found[name] = value
    return found


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Make ``save_pretrained`` write the base model instead of its adapters."""
    found: Any = model
    added = getattr(model, "_hf_peft_config_loaded", False)
    if added:
        found._hf_peft_config_loaded = False
    try:
        yield
    finally:
        if added:
            found._hf_peft_config_loaded = True


def _base_key(key: str, prefixes: set[str]) -> str | None:
    """Return a state dict's key as in the base model; None for the key of an adapter."""
    path, kept = "", []
    for part in key.split("."):
        if path not in prefixes:
            kept.append(part)
        elif part != "base_layer":
            return None
        path = f"{path}.{part}" if path else part
    return ".".join(kept)


def _adapted(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield layers with an adapter: name, module, and base layer."""
    for name, module in model.named_modules():
        if (base := base_layer_of(module)) is not None:
            yield name, module, base


def _is(module: nn.Module, home: str, name: str) -> bool:
    """Whether a module is an instance of a library's class; False if it is not loaded."""
    kind = getattr(sys.modules.get(home), name, None)
    return kind is not None and isinstance(module, kind)
