"""Exact second derivatives of the loss, by autograd."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from icbs.curvature.source import Batch, Collector, CurvatureSource, PassSizes, QuadraticModel
from icbs.errors import DataError
from icbs.model.gates import Gates


class Hessian(CurvatureSource):
    """Second derivatives of the mean loss with respect to the gates of a block.

    Costs n backward passes for n gates; for small blocks, and as a reference for the Fisher
    sources.

    Parameters
    ----------
    samples : int
        Number of samples in the mean.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def collectors(self, batch: Batch) -> list[Collector]:
        """Return a collector that only stores the samples."""
        return [_Autograd(batch, min(self.samples, len(batch)))]

    def check(self, batch: Batch) -> None:
        """Compute the second derivative of a sample's loss for one weight, as a test.

        Raises
        ------
        DataError
            If an operation of the model or the loss has no second derivative.
        """
        layer = batch.layers[0]
        first = torch.zeros(1, dtype=torch.int64, device=layer.dense.device)
        try:
            _Autograd(batch, 1).model(Gates.single(layer, first))
        except RuntimeError as error:
            raise DataError(
                f"curvature='exact' needs second derivatives, and the model or the loss has none "
                f"({str(error).splitlines()[0]}); use attn_implementation='eager' for models of "
                "transformers, or another curvature"
            ) from error

    def memory(self, sizes: PassSizes) -> dict[str, int]:
        """Estimate the bytes of the dense problems of all layers."""
        return {"block columns": 8 * sum(n**2 for n in sizes.gates)}


class _Autograd(Collector):
    """The Hessian on the first samples of a pass, computed on demand."""

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch, self.samples = batch, batch.samples[:count]

    def model(self, gates: Gates) -> QuadraticModel:
        """Differentiate twice."""
        batch, samples = self.batch, self.samples
        pieces = []
        for part in gates.parts:
            layer = part.layer
            # In a wrapped layer (of an adapter) the module has another name in the model.
            path = next(n for n, m in batch.model.named_modules() if m is layer.module)
            pieces.append((f"{path}.weight", layer.kind.weight, layer.kind.at(*part.places), part))

        def mean_loss(opened: Tensor) -> Tensor:
            replaced: dict[str, Tensor] = {}
            for name, current, place, part in pieces:
                values = part.of(opened) * part.weights
                replaced[name] = replaced.get(name, current).index_put(place, values)
            inputs = samples.inputs
            args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
            if isinstance(inputs, dict):
                outputs = functional_call(batch.model, replaced, (), inputs)
            else:
                outputs = functional_call(batch.model, replaced, args)
            return batch.objective.mean(outputs, samples.targets)

        dense = gates.parts[0].weights
        opened = torch.from_numpy(1 - gates.closed()).to(dense.device, dense.dtype)
        # Fused attention has no second derivatives.
        with sdpa_kernel(SDPBackend.MATH):
            matrix = torch.autograd.functional.hessian(mean_loss, opened)
        return QuadraticModel(matrix=(matrix + matrix.T) / 2)
