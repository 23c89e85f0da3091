"""The interface of curvature sources: second-order information on blocks, out of one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from icbs.curvature.layer_io import Call
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.gates import Gates
from icbs.model.layer import Layer


@dataclass
class QuadraticModel:
    """A quadratic model of what opening and closing gates does.

    With ``u = x - x⁰`` (1 closes a gate, -1 opens it) the change is
    ``w (-s·u + ½ uᵀCu)``, where the slope s sums ``gradient · weight`` over the weights of each
    gate, and C is the second derivative with respect to the gates.
    """

    factor: Tensor | None = None
    """F of shape (N, n) with ``C = FᵀF / dispersion``, or None where :attr:`matrix` is given."""
    matrix: Tensor | None = None
    """C of shape (n, n)."""
    gradients: Sequence[Tensor] | None = None
    """Gradient with respect to the weights, shape (m,) for each part of the gates; None for the
    mean gradient of the loss that every pass takes."""
    models_loss: bool = True
    """Whether the change is one of the loss; else of something else, such as a layer's error."""
    dispersion: float = 1.0
    """φ, by which a second moment of gradients is to be divided; see
    :mod:`icbs.data.dispersion`."""
    weight: float = 1.0
    """w, the factor on the whole model."""


@dataclass(frozen=True)
class PassSizes:
    """Sizes of a pass, from which sources estimate their memory."""

    layers: Sequence[Layer]
    samples: int
    """Samples of the pass."""
    gates: Sequence[int]
    """Gates of each block, at most."""
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
    """Randomness of the pass."""
    select_after: int | None = None
    """Number of samples after which the blocks are selected; None for the end of the pass."""
    loss: float = field(default=0.0, init=False)
    """Loss summed over the samples so far; their mean once the pass is over."""

    def __len__(self) -> int:
        return len(self.samples)


class Collector(ABC):
    """Gathers what a source needs, call by call, as the samples of one pass go by."""

    draws_targets: bool = False
    """Whether its calls carry the gradients for targets drawn from the model's distribution;
    else those for the targets of the data."""

    def span(self) -> tuple[int, int]:
        """Return the first sample whose calls are wanted, and the one before which they end."""
        return 0, 0

    def select(self, blocks: Mapping[str, Gates]) -> None:  # noqa: B027
        """Take the blocks, before the first call, in a pass that selects them midway."""

    def add(self, layer: Layer, call: Call) -> None:  # noqa: B027
        """Take a call of a layer: what came in, and the gradient that came back."""

    def finish(self) -> None:  # noqa: B027
        """Complete the sums once all samples have gone by; see :mod:`icbs.parallel`."""

    @abstractmethod
    def model(self, gates: Gates) -> QuadraticModel:
        """Return the quadratic model of a block; may be called several times."""


class CurvatureSource(ABC):
    """Where the curvature of a block comes from; an object that declares its properties.

    A new source is one class, and a row in ``icbs.plugins.CURVATURES``, an entry point of the
    group ``icbs.curvature``, or a call of ``CURVATURES.register``. What is registered is
    ``factory(settings)``, which makes the source from the settings of a run
    (:class:`icbs.PrunerConfig`). :func:`icbs.testing.check_curvature` tests a source.
    """

    draws_targets: bool = False
    """Whether a collector of its draws targets from the model."""
    models_loss: bool = True
    """Whether it models the loss, so that predictions can be compared with measured losses."""
    selects_midway: bool = False
    """Whether blocks are selected before its samples come: it then keeps their columns alone."""
    uses_rows: bool = False
    """Whether it needs the gradients of single samples, and not only their sum."""

    @abstractmethod
    def collectors(self, batch: Batch) -> list[Collector]:
        """Begin a pass; one collector for each quadratic model of a block."""

    def check(self, batch: Batch) -> None:  # noqa: B027
        """Try the source on a few samples before work starts.

        Raises
        ------
        DataError
            If the model or the loss can't give what the source needs.
        """

    def memory(self, sizes: PassSizes) -> dict[str, int]:
        """Estimate the bytes that a pass needs for this source, by purpose."""
        return {}
