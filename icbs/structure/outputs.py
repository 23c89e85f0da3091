"""Tensors among the outputs of a model, without caches."""

from __future__ import annotations

from typing import Any

from torch import Tensor

CACHES = ("past_key_values", "attentions", "hidden_states", "mems")


def output_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of a model's output, in order.

    Caches, attention weights and hidden states of a language model are left out.
    """
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if hasattr(output, "keys"):
        return [t for key in output for t in output_tensors(output[key]) if key not in CACHES]
    if isinstance(output, tuple | list):
        return [t for item in output for t in output_tensors(item)]
    return []
