"""Kinds of layers: a module's weights, inputs and outputs as matrices.

All other code sees a layer as a matrix (out, in) that multiplies the features of each
position. A new kind is one class, and a row in ``icbs.plugins.KINDS``, an entry point of the
group ``icbs.kinds``, or a call of ``KINDS.register``; :func:`icbs.testing.check_kind` tests it.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs.plugins import KINDS


class Kind:
    """A module whose output is a matrix times the features of each position, plus a bias.

    Parameters
    ----------
    module : nn.Module
    """

    types: ClassVar[str] = ""
    """Modules of this kind, for messages."""
    pointwise: ClassVar[bool] = True
    """Whether each position's output depends on that position's inputs only, features last."""
    groups: int = 1
    """Number of parts of outputs and features; each part of outputs uses one of features."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is of this kind."""
        return False

    @property
    def weight(self) -> Tensor:
        """Current weights in the module's own shape."""
        return self.module.weight.detach()

    def matrix(self, weight: Tensor) -> Tensor:
        """Arrange values, one per weight, from the module's shape as (out, in)."""
        return weight

    def shaped(self, matrix: Tensor) -> Tensor:
        """Arrange a matrix (out, in) in the module's shape."""
        return matrix

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        """Return the index in the module's weight of entries (rows, columns) of the matrix."""
        return rows, columns

    def features(self, inputs: Tensor, outputs: torch.Size, samples: int) -> Tensor:
        """Arrange the inputs that the matrix multiplies, shape (samples, T, groups · in).

        Parameters
        ----------
        inputs : Tensor
            First argument of a call.
        outputs : torch.Size
            Shape of the call's output.
        samples : int
            Samples in the call, one after another in the first dimension.
        """
        return inputs.reshape(samples, -1, inputs.shape[-1])

    def positions(self, outputs: Tensor, samples: int) -> Tensor:
        """Arrange outputs, or their gradients, by position, shape (samples, T, out)."""
        return outputs.reshape(samples, -1, outputs.shape[-1])

    @torch.no_grad()
    def explains(self, inputs: Tensor, outputs: Tensor, samples: int) -> bool:
        """Whether a call's output is the matrix times the features plus the bias.

        Subclasses of a module may do more: scale the weight, add an adapter.
        """
        features = self.features(inputs, outputs.shape, samples).unflatten(2, (self.groups, -1))
        matrix = self.matrix(self.weight).unflatten(0, (self.groups, -1))
        expected = torch.einsum("ntgc,goc->ntgo", features, matrix.to(features.dtype)).flatten(2)
        if (bias := getattr(self.module, "bias", None)) is not None:
            expected = expected + bias
        found = self.positions(outputs, samples)
        if found.shape != expected.shape:
            return False
        error = (found - expected).float().norm()
        return bool(error <= 0.02 * expected.float().norm() + 1e-6)


class Linear(Kind):
    """``nn.Linear``: weight (out, in), features last."""

    types = "nn.Linear"

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is linear."""
        return isinstance(module, nn.Linear)


class Transposed(Kind):
    """``Conv1D`` of transformers (GPT-2): a linear layer with a weight of shape (in, out)."""

    types = "transformers' Conv1D"

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is a Conv1D."""
        # Not imported: a model with such a layer has loaded the library already.
        transformers = sys.modules.get("transformers.pytorch_utils")
        return transformers is not None and isinstance(module, transformers.Conv1D)

    def matrix(self, weight: Tensor) -> Tensor:
        """Arrange values in the module's shape as (out, in)."""
        return weight.T

    def shaped(self, matrix: Tensor) -> Tensor:
        """Arrange a matrix (out, in) in the module's shape."""
        return matrix.T

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        """Return the index in the module's weight of entries (rows, columns) of the matrix."""
        return columns, rows


class Convolution(Kind):
    """``nn.Conv2d``, unfolded: in = channels of a group × height × width of the kernel."""

    types = "nn.Conv2d"
    pointwise = False

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is a two-dimensional convolution."""
        return isinstance(module, nn.Conv2d)

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.groups = self.module.groups

    def matrix(self, weight: Tensor) -> Tensor:
        """Arrange values in the module's shape as (out, in)."""
        return weight.flatten(1)

    def shaped(self, matrix: Tensor) -> Tensor:
        """Arrange a matrix (out, in) in the module's shape."""
        return matrix.reshape(self.module.weight.shape)

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        """Return the index in the module's weight of entries (rows, columns) of the matrix."""
        _, _, height, width = self.module.weight.shape
        rest = columns % (height * width)
        return rows, columns // (height * width), rest // width, rest % width

    def features(self, inputs: Tensor, outputs: torch.Size, samples: int) -> Tensor:
        """Unfold the input patch of each position, shape (samples, T, groups · in)."""
        padded = self._padded(inputs, (outputs[-2], outputs[-1]))
        module = self.module
        unfolded = F.unfold(
            padded, module.kernel_size, dilation=module.dilation, stride=module.stride
        )
        # Unfolded features are ordered by channel first, so those of a group are contiguous.
        places = unfolded.transpose(1, 2)
        return places.reshape(samples, -1, places.shape[-1])

    def positions(self, outputs: Tensor, samples: int) -> Tensor:
        """Move channels last, shape (samples, T, out)."""
        places = outputs.flatten(2).transpose(1, 2)
        return places.reshape(samples, -1, places.shape[-1])

    def _padded(self, inputs: Tensor, size: tuple[int, int]) -> Tensor:
        """Pad as the module does; for subclasses that pad by themselves, to fit the output."""
        sides: list[int] = []
        for axis in (1, 0):
            before, after = self._padding(axis)
            stride, reach = self.module.stride[axis], self._reach(axis)
            length = inputs.shape[axis - 2]
            if (length + before + after - reach) // stride + 1 != size[axis]:
                short = max(0, (size[axis] - 1) * stride + reach - length)
                before, after = short // 2, short - short // 2
            sides += [before, after]
        if not any(sides):
            return inputs
        mode = self.module.padding_mode
        return F.pad(inputs, sides, mode="constant" if mode == "zeros" else mode)

    def _reach(self, axis: int) -> int:
        """Return the length that a dilated kernel covers along an axis."""
        return int(self.module.dilation[axis] * (self.module.kernel_size[axis] - 1) + 1)

    def _padding(self, axis: int) -> tuple[int, int]:
        padding = self.module.padding
        if padding == "valid":
            return 0, 0
        if padding == "same":
            total = self._reach(axis) - 1
            return total // 2, total - total // 2
        return padding[axis], padding[axis]


def kind_of(module: nn.Module) -> Kind | None:
    """Return the kind of a module; None for an unsupported one."""
    for name in KINDS.names():
        kind = KINDS.get(name)
        if kind.fits(module):
            found: Kind = kind(module)
            return found
    return None


def known_types() -> str:
    """List the modules that can be pruned, for messages."""
    types = [KINDS.get(name).types for name in KINDS.names()]
    return f"{', '.join(types[:-1])} and {types[-1]}"
