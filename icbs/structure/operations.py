"""The operations of a call: what its time depends on, besides the machine."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from icbs.data.pytree import call


class _Recorder(TorchDispatchMode):
    """Digest of each operation with the shapes and types of its tensors, and its options."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = hashlib.sha256()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record an operation, and run it."""
        leaves = [_described(leaf) for leaf in tree_leaves((args, kwargs or {}))]
        self.digest.update(f"{func} {' '.join(leaves)}\n".encode())
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.stride()} {value.dtype}"
    return repr(value)


@torch.no_grad()
def operations(model: nn.Module, inputs: Any) -> str:
    """Return a digest of the operations of a call: their order, shapes and options.

    It differs by strides, padding, activations and the implementation of attention, and does not
    depend on the values of weights.

    Parameters
    ----------
    model : nn.Module
    inputs
        Inputs of a call.
    """
    recorder = _Recorder()
    with recorder:
        call(model, inputs)
    return recorder.digest.hexdigest()
