"""The training samples that drive the pruning, read once and kept in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icbs.data.trees import concatenate, tensors, tree_map
from icbs.errors import DataError, IgnoredSamplesWarning
from icbs.layers.plain import oddity

IGNORED = -100
"""Label of what does not count, as in torch's cross-entropy."""


@dataclass
class Samples:
    """Inputs (a tensor or a tree of tensors) and targets, sample by sample."""

    inputs: Any
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any) -> Samples:
        return Samples(tree_map(lambda t: t[index], self.inputs), self.targets[index])

    def to(self, device: torch.device) -> Samples:
        """Move to a device."""
        return Samples(tree_map(lambda t: t.to(device), self.inputs), self.targets.to(device))


def read_samples(batches: Iterable[Any], most: int) -> Samples:
    """Read ``(inputs, targets)`` batches, up to ``most`` samples.

    Raises
    ------
    DataError
        If there is no batch, a batch is no pair, sizes differ, or an input is not finite.
    """
    if not isinstance(batches, Iterable):
        raise DataError(
            f"batches is {type(batches).__name__}; pass an iterable of (inputs, targets)"
        )
    inputs, targets, count = [], [], 0
    for batch in batches:
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise DataError(
                f"a batch is {type(batch).__name__}; batches must be pairs (inputs, targets)"
            )
        received, wanted = batch
        _check_batch(received, wanted, first=count)
        inputs.append(received)
        targets.append(wanted)
        count += len(wanted)
        if count >= most:
            break
    if not count:
        raise DataError("batches is empty; pass an iterable of (inputs, targets)")
    try:
        samples = Samples(concatenate(inputs), torch.cat(targets))
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise DataError(
            f"batches can't be joined into one set of samples: {error}; give all of them one "
            "structure and one size of a sample"
        ) from error
    return _counted(samples[:most])


def _counted(samples: Samples) -> Samples:
    """Drop samples of which no label counts, with a word.

    Raises
    ------
    DataError
        If that leaves nothing.
    """
    targets = samples.targets
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return samples
    counts = (targets != IGNORED).reshape(len(targets), -1).any(dim=1)
    if counts.all():
        return samples
    if not counts.any():
        raise DataError(f"every label is {IGNORED} (ignored): there is nothing to learn from")
    left = int((~counts).sum())
    warnings.warn(
        f"{left} of {len(targets)} samples are left out: all their labels are {IGNORED}",
        IgnoredSamplesWarning,
        stacklevel=5,
    )
    return samples[counts]


def _check_batch(inputs: Any, targets: Any, first: int) -> None:
    found = tensors(inputs)
    if not found or not isinstance(targets, Tensor):
        raise DataError("inputs must be tensors, or dicts or tuples of them, and targets a tensor")
    if targets.ndim == 0:
        raise DataError(
            "a batch holds a single sample, with a target of no dimension, as DataLoader with "
            "batch_size=None gives; the first dimension must be the sample: set batch_size"
        )
    for tensor in [*found, targets]:
        if odd := oddity(tensor):
            raise DataError(f"a batch holds a tensor that is {odd}; give plain tensors in memory")
        if tensor.ndim == 0 or len(tensor) != len(targets):
            raise DataError(
                f"a batch holds {tuple(tensor.shape)} beside targets of {tuple(targets.shape)}; "
                "the first dimension must be the sample"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = ~torch.isfinite(tensor.reshape(len(tensor), -1)).all(dim=1)
            raise DataError(
                f"sample {first + int(bad.nonzero()[0])} holds NaN or infinite values; "
                "remove or repair it"
            )
