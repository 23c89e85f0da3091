"""Small random inputs for models that say their shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from icbs.errors import LayerError

LENGTH = 8


def example_inputs_of(model: nn.Module) -> Any:
    """Return inputs of a call: tokens or pixels for transformers, features for a linear layer.

    Raises
    ------
    LayerError
        If the model doesn't say what it reads.
    """
    config: Any = getattr(model, "config", None)
    generator = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    if isinstance(size := getattr(config, "image_size", None), int):
        shape = (1, getattr(config, "num_channels", 3), size, size)
        pixels = torch.randn(shape, generator=generator).to(parameter)
        return {"pixel_values": pixels}
    if isinstance(count := getattr(config, "vocab_size", None), int):
        tokens = torch.randint(count, (1, LENGTH), generator=generator)
        return {"input_ids": tokens.to(parameter.device)}
    leaves = [m for m in model.modules() if not list(m.children())]
    if isinstance(model, nn.Sequential) and isinstance(leaves[0], nn.Linear):
        return torch.randn(4, leaves[0].in_features, generator=generator).to(parameter)
    raise LayerError(
        "the shape of the model's inputs is unknown; give example_inputs, a batch of one or two "
        "samples as the model is called with"
    )
