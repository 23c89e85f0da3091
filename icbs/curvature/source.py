"""Interface of curvature sources: second-order information on blocks from one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icbs.curvature.layer_io import Call
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.gates import Gates
from icbs.model.layer import Layer


@dataclass
class QuadraticModel:
    """A quadratic model of the change caused by opening and closing gates.

    With ``u = x - x⁰`` (1 closes a gate, -1 opens it) the change is
    ``w (-s·u + ½ uᵀCu)``, where the slope s sums ``gradient · weight`` over the weights of each
    gate, and C is the second derivative with respect to the gates.
    """

    factor: Tensor | None = None
    """F of shape (N, n) with ``C = FᵀF / dispersion``, or None if :attr:`matrix` is given."""
    matrix: Tensor | None = None
    """C of shape (n, n)."""
    gradients: Sequence[Tensor] | None = None
    """Gradient with respect to the weights, shape (m,) for each part of the gates; None for the
    mean gradient of the loss that each pass computes."""
    models_loss: bool = True
    """Whether the change is one of the loss; False for others (a layer's output error)."""
    dispersion: float = 1.0
    """φ, the divisor of a second moment of gradients; see
    :mod:`icbs.data.dispersion`."""
    weight: float = 1.0
    """w, the factor on the whole model."""

    @property
    def diagonal(self) -> npt.NDArray[np.float64]:
        """Diagonal of C, shape (n,), before the division by the dispersion."""
        if self.factor is not None:
            own = self.factor.double().square().sum(dim=0)
        elif self.matrix is not None:
            own = self.matrix.diagonal()
        else:
            raise ValueError("a quadratic model has neither a factor nor a matrix")
        wide: npt.NDArray[np.float64] = own.double().cpu().numpy()
        return wide


@dataclass(frozen=True)
class PassSizes:
    """Sizes of a pass, for memory estimates of sources."""

    layers: Sequence[Layer]
    samples: int
    """Samples of the pass."""
    gates: Sequence[int]
    """Maximum number of gates of each block."""
    held: int
    """Bytes of the inputs and outputs of all layers, for one sample."""
    midway: bool
    """Whether the blocks are selected midway through the pass."""

    @property
    def itemsize(self) -> int:
        """Bytes of a number in gradients and factors."""
        return max(4, self.layers[0].dense.element_size())


@dataclass
class Batch:
    """The model and the samples of a pass."""

    model: nn.Module
    layers: Sequence[Layer]
    objective: Objective
    samples: Samples
    generator: torch.Generator
    """Random generator of the pass."""
    select_after: int | None = None
    """Number of samples after which the blocks are selected; None for the end of the pass."""
    loss: float = field(default=0.0, init=False)
    """Loss summed over the samples so far; the mean at the end of the pass."""

    def __len__(self) -> int:
        return len(self.samples)


class Collector(ABC):
    """Collects the data of a source, call by call, during one pass."""

    draws_targets: bool = False
    """Whether its calls have gradients for targets drawn from the model's distribution, instead of
    the targets of the data."""

    def span(self) -> tuple[int, int]:
        """Return the range (start, stop) of the samples whose calls are needed."""
        return 0, 0

    def select(self, blocks: Mapping[str, Gates]) -> None:  # noqa: B027
        """Receive the blocks, before the first call, in a pass that selects them midway."""

    def add(self, layer: Layer, call: Call) -> None:  # noqa: B027
        """Receive a call of a layer: its input and its output gradient."""

    def finish(self) -> None:  # noqa: B027
        """Complete the sums after the last sample, over all processes; see :mod:`icbs.parallel`."""

    @abstractmethod
    def model(self, gates: Gates) -> QuadraticModel:
        """Return the quadratic model of a block; may be called several times."""


class CurvatureSource(ABC):
    """Source of the curvature of blocks; declares its properties as attributes.

    A new source is one class, and an entry of ``icbs.plugins.CURVATURES``, an entry point of the
    group ``icbs.curvature``, or a call of ``CURVATURES.register``. The registered object is
    ``factory(settings)``, which creates the source from the settings of a run
    (:class:`icbs.PrunerConfig`). :func:`icbs.testing.check_curvature` tests a source.
    """

    draws_targets: bool = False
    """Whether one of its collectors draws targets from the model."""
    models_loss: bool = True
    """Whether it models the loss, so that predictions are comparable with measured losses."""
    selects_midway: bool = False
    """Whether blocks are selected before its samples, so that only their columns are stored."""
    uses_rows: bool = False
    """Whether it needs the gradients of single samples, and not only their sum."""

    @abstractmethod
    def collectors(self, batch: Batch) -> list[Collector]:
        """Begin a pass; return one collector for each quadratic model of a block."""

    def check(self, batch: Batch) -> None:  # noqa: B027
        """Test the source on a few samples before the run starts.

        Raises
        ------
        DataError
            If the model or the loss does not support the source.
        """

    def memory(self, sizes: PassSizes) -> dict[str, int]:
        """Estimate the bytes that a pass needs for this source, by purpose."""
        return {}
