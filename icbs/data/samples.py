"""Training samples for pruning, read once and kept in memory, and their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icbs import streams
from icbs.data.pytree import concatenate, tensors, tree_map
from icbs.errors import DataError, IgnoredSamplesWarning
from icbs.model.plain import storage_problem
from problems.warn import warn

IGNORED = -100
"""Label of ignored targets, as in torch's cross-entropy."""


@dataclass
class Samples:
    """Inputs (a tensor or a tree of tensors) and targets, with samples as first dimension."""

    inputs: Any
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any) -> Samples:
        return Samples(tree_map(lambda t: t[index], self.inputs), self.targets[index])

    def to(self, device: torch.device) -> Samples:
        """Move to a device."""
        return Samples(tree_map(lambda t: t.to(device), self.inputs), self.targets.to(device))


def joined(*parts: Samples) -> Samples:
    """Return all samples of several parts, in their order."""
    inputs = concatenate([part.inputs for part in parts])
    return Samples(inputs, torch.cat([part.targets for part in parts]))


def read_samples(batches: Iterable[Any], most: int) -> Samples:
    """Read ``(inputs, targets)`` batches, up to ``most`` samples.

    Raises
    ------
    DataError
        If there is no batch, a batch is not a pair, sizes differ, or an input is not finite.
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
            f"batches can't be concatenated: {error}; give all of them the same structure and "
            "the same size of a sample"
        ) from error
    return _without_ignored(samples[:most])


def _without_ignored(samples: Samples) -> Samples:
    """Drop samples with only ignored labels, with a warning.

    Raises
    ------
    DataError
        If no sample is left.
    """
    targets = samples.targets
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return samples
    counts = (targets != IGNORED).reshape(len(targets), -1).any(dim=1)
    if counts.all():
        return samples
    if not counts.any():
        raise DataError(f"every label is {IGNORED} (ignored); give samples with other labels")
    left = int((~counts).sum())
    warn(
        f"{left} of {len(targets)} samples are dropped: all their labels are {IGNORED} (ignored)",
        IgnoredSamplesWarning,
    )
    return samples[counts]


def _check_batch(inputs: Any, targets: Any, first: int) -> None:
    found = tensors(inputs)
    if not found or not isinstance(targets, Tensor):
        raise DataError("inputs must be tensors, or dicts or tuples of them, and targets a tensor")
    if targets.ndim == 0:
        raise DataError(
            "a batch has a scalar target, as from a DataLoader with batch_size=None; the first "
            "dimension must be the sample: set batch_size"
        )
    for tensor in [*found, targets]:
        if problem := storage_problem(tensor):
            raise DataError(f"a batch has a tensor that is {problem}; give dense tensors in memory")
        if tensor.ndim == 0 or len(tensor) != len(targets):
            raise DataError(
                f"a batch has inputs of shape {tuple(tensor.shape)} and targets of shape "
                f"{tuple(targets.shape)}; the first dimension must be the sample"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = ~torch.isfinite(tensor.reshape(len(tensor), -1)).all(dim=1)
            raise DataError(
                f"sample {first + int(bad.nonzero()[0])} has NaN or infinite values; "
                "remove or repair it"
            )


def diverse_samples(samples: Samples, count: int, seed: int, ignored: int = IGNORED) -> Tensor:
    """Choose random samples with labels that are as different as possible.

    A loss that weights samples differently can be detected only on samples that differ: in
    class, or, with several labels each, in the number of labels that are not ignored.

    Parameters
    ----------
    samples : Samples
    count : int
        Largest number of samples to choose.
    seed : int
    ignored : int, default -100
        Label of ignored targets.

    Returns
    -------
    Tensor of int64, shape (min(count, N),)
        Indices. Samples are spread evenly over the values of the differing property, including
        the smallest and the largest.
    """
    order = torch.randperm(len(samples), generator=streams.samples(seed))
    for key in _differences(samples, ignored):
        values, kind, sizes = key.cpu()[order].unique(return_inverse=True, return_counts=True)
        if len(values) > 1:
            break
    else:
        return order[:count]
    # Round robin: the first sample of each value, then the second of each, …
    turn = torch.empty_like(kind)
    sort = kind.argsort(stable=True)
    turn[sort] = torch.arange(len(kind)) - (sizes.cumsum(0) - sizes)[kind[sort]]
    by_turn = (turn * len(values) + kind).argsort()
    if count < len(values):
        by_turn = by_turn[torch.linspace(0, len(values) - 1, count).round().long()]
    return order[by_turn[:count]]


def _differences(samples: Samples, ignored: int) -> Iterator[Tensor]:
    """Yield properties that a loss may weight samples by, one integer per sample, shape (N,)."""
    targets, inputs = samples.targets, samples.inputs
    if not targets.is_floating_point() and targets.dtype != torch.bool:
        yield targets if targets.ndim == 1 else (targets != ignored).flatten(1).sum(dim=1)
    elif targets.ndim == 2 and targets.shape[1] > 1:
        yield targets.float().argmax(dim=1)  # class probabilities
    if isinstance(inputs, dict):  # inputs of a model that computes its own loss
        for name, none in (("labels", ignored), ("attention_mask", 0)):
            if isinstance(given := inputs.get(name), Tensor):
                yield (given != none).flatten(1).sum(dim=1) if given.ndim > 1 else given.long()


def epoch_order(size: int, seen: int, count: int, seed: int) -> Tensor:
    """Return the next indices of a fixed permutation, cycling through all samples.

    Consecutive passes then share as few samples as possible: gradients on the samples that a
    mask was selected with overestimate its gain (selection bias).

    Parameters
    ----------
    size : int
        Number of samples.
    seen : int
        Number of indices returned before, over all epochs.
    count : int
        Number of indices to return, at most ``size``.
    seed : int
        Seed of the permutation, which is the same in each epoch.

    Returns
    -------
    Tensor of int64, shape (count,)
        Distinct indices.
    """
    order = torch.randperm(size, generator=streams.samples(seed))
    return order.roll(-seen)[:count]
