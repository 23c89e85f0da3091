"""Forward hooks and functions that are removed when their context ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from torch import nn

Key = TypeVar("Key", bound=Hashable)
Before = Callable[[Key, tuple[Any, ...], dict[str, Any]], Any]
After = Callable[[Key, tuple[Any, ...], dict[str, Any], Any], Any]


@contextmanager
def watch_calls(
    modules: Mapping[Key, nn.Module],
    *,
    before: Before[Key] | None = None,
    after: After[Key] | None = None,
    prepend: bool = False,
) -> Iterator[None]:
    """Call functions before and after each call of some modules, within the context.

    Parameters
    ----------
    modules : mapping of a key to nn.Module
    before : callable, optional
        ``before(key, args, kwargs)``. As a hook of torch it may return None or other
        ``(args, kwargs)``, and an exception ends the forward pass.
    after : callable, optional
        ``after(key, args, kwargs, output)``, which may return None or another output.
    prepend : bool, default False
        Run before the hooks that the modules have already.
    """
    options = {"prepend": prepend, "with_kwargs": True}

    def pre_hook(key: Key, function: Before[Key]) -> Callable[..., Any]:
        return lambda module, args, kwargs: function(key, args, kwargs)

    def hook(key: Key, function: After[Key]) -> Callable[..., Any]:
        return lambda module, args, kwargs, output: function(key, args, kwargs, output)

    with ExitStack() as handles:
        for key, module in modules.items():
            if before is not None:
                handle = module.register_forward_pre_hook(pre_hook(key, before), **options)
                handles.enter_context(handle)
            if after is not None:
                handles.enter_context(module.register_forward_hook(hook(key, after), **options))
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace a module's ``forward`` within the context; its hooks run as before."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
