"""Removal of wrappers around modules: compiled, data-parallel, adapters."""

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
    """Return the module inside of wrappers; the module itself if it is not wrapped."""
    while (found := _wrapped(module)) is not None:
        module = found
    return module


def _wrapped(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return module.module
    # Not imported, which takes a second: a compiled module has loaded Dynamo already.
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return module._orig_mod
    return base_model_of(module)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by their names without wrappers.

    ``0._orig_mod.1`` (compiled), ``module.0.1`` (data-parallel) and ``0.1.base_layer`` (PEFT)
    all become ``0.1``. The model itself is left out.
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
    """Yield a model without wrappers, around itself or its parts, and without compiled code.

    Within the context wrapped children replace their wrappers, and compiled code runs eagerly,
    because it would ignore hooks. Weights are shared, not copied.

    Raises
    ------
    LayerError
        If the model does not run as modules: exported, scripted or sharded.
    """
    model = inside(model)
    check_runs_as_modules(model)
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    compiled: list[tuple[nn.Module, Any]] = []
    try:
        for parent in list(_plain_modules(model)):
            for name, child in list(parent._modules.items()):
                if child is not None and (plain := inside(child)) is not child:
                    replaced.append((parent, name, child))
                    parent._modules[name] = plain
            if (call := getattr(parent, "_compiled_call_impl", None)) is not None:
                compiled.append((parent, call))
                parent._compiled_call_impl = None
        with ExitStack() as stack:
            stack.enter_context(_eager())
            yield model
    finally:
        for parent, name, child in replaced:
            parent._modules[name] = child
        for module, call in compiled:
            module._compiled_call_impl = call


def _plain_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules of a model except wrappers."""
    seen, left = {model}, [model]
    while left:
        module = left.pop()
        yield module
        for child in module.children():
            if (plain := inside(child)) not in seen:
                seen.add(plain)
                left.append(plain)


def _eager() -> Any:
    """Run compiled functions eagerly too, where torch can (from 2.6)."""
    if "torch._dynamo.eval_frame" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def check_runs_as_modules(model: nn.Module) -> None:
    """Refuse a model that does not run as modules with weights of their own.

    Raises
    ------
    LayerError
        If the model is exported, scripted or sharded.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise LayerError(
            f"the model is scripted ({type(model).__name__}); prune the module that it was "
            "scripted from"
        )
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    sharded = getattr(fsdp, "FullyShardedDataParallel", None)
    for name, module in model.named_modules():
        what = repr(name) if name else "the model"
        if any(base.__module__.startswith("torch.export.") for base in type(module).__mro__):
            raise LayerError(
                f"{what} is the module of an exported program ({type(module).__name__}), which "
                "runs as a graph; prune the original module, and export it again"
            )
        if sharded is not None and isinstance(module, sharded):
            raise LayerError(
                f"the weights of {what} are sharded (FullyShardedDataParallel); prune it before "
                "it is sharded"
            )
