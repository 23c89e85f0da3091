"""Wrappers around modules: compiled, data-parallel, adapters; seen through, so names are plain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from icbs.errors import LayerError
from icbs.model.adapters import base_layer_of, base_model_of


def inside(module: nn.Module) -> nn.Module:
    """Return the module that wrappers run; the module itself if it is not wrapped."""
    while (found := _wrapped(module)) is not None:
        module = found
    return module


def _wrapped(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return module.module
    # A compiled module has loaded Dynamo, which takes a second; nobody else should have to.
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return module._orig_mod
    return base_model_of(module)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by the names they have without wrappers.

    ``0._orig_mod.1`` (compiled), ``module.0.1`` (data-parallel) and ``0.1.base_layer`` (PEFT)
    are all ``0.1``. The model itself is left out.
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def visit(name: str, module: nn.Module) -> None:
        module = inside(module)
        if id(module) in seen:
            return
        seen.add(id(module))
        base = base_layer_of(module)
        if name:
            found[name] = module if base is None else base
        for part in (module, *([] if base is None else [base])):
            for key, child in part.named_children():
                if child is not base:
                    visit(f"{name}.{key}" if name else key, child)

    visit("", model)
    return found


@contextmanager
def unwrapped(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model without its wrappers, and those of its parts; nothing in it is compiled.

    Within the context children take the places of their wrappers, and compiled code runs
    eagerly, since compiled code ignores hooks. Weights are shared, not copied.

    Raises
    ------
    LayerError
        If the model does not run as modules: exported, scripted or sharded.
    """
    model = inside(model)
    _check_runs_as_modules(model)
    places: list[tuple[nn.Module, str, nn.Module]] = []
    compiled: list[tuple[nn.Module, Any]] = []
    try:
        for parent in list(_plain_modules(model)):
            for name, child in list(parent._modules.items()):
                if child is not None and (plain := inside(child)) is not child:
                    places.append((parent, name, child))
                    parent._modules[name] = plain
            if (call := getattr(parent, "_compiled_call_impl", None)) is not None:
                compiled.append((parent, call))
                parent._compiled_call_impl = None
        with ExitStack() as stack:
            stack.enter_context(_eager())
            yield model
    finally:
        for parent, name, child in places:
            parent._modules[name] = child
        for module, call in compiled:
            module._compiled_call_impl = call


def _plain_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Walk through a model as it is without wrappers, whether or not they are still there."""
    seen, left = {model}, [model]
    while left:
        module = left.pop()
        yield module
        for child in module.children():
            if (plain := inside(child)) not in seen:
                seen.add(plain)
                left.append(plain)


def _eager() -> Any:
    """Let functions that are compiled by themselves run eagerly, where torch can (from 2.6)."""
    if "torch._dynamo.eval_frame" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def _check_runs_as_modules(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise LayerError(
            f"the model is scripted ({type(model).__name__}); prune the module that it was made "
            "from"
        )
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    sharded = getattr(fsdp, "FullyShardedDataParallel", None)
    for name, module in model.named_modules():
        what = repr(name) if name else "the model"
        if any(base.__module__.startswith("torch.export.") for base in type(module).__mro__):
            raise LayerError(
                f"{what} is the module of an exported program ({type(module).__name__}), which "
                "runs as a graph; prune the module that was exported, and export it again"
            )
        if sharded is not None and isinstance(module, sharded):
            raise LayerError(
                f"the weights of {what} are sharded (FullyShardedDataParallel); prune it before "
                "it is sharded"
            )
