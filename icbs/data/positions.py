"""Positions within samples: padding, and random positions that are used as samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icbs.data.samples import IGNORED, Samples


def counted_positions(samples: Samples) -> Tensor | None:
    """Return which positions are not padding, bool, shape (N, T); None without positions.

    Taken from the attention mask if there is one, else from labels other than -100.
    """
    inputs, targets = samples.inputs, samples.targets
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask != 0
    if targets.ndim == 2 and not targets.is_floating_point():
        return targets != IGNORED
    return None


@dataclass
class Drawn:
    """Random positions of a batch."""

    sample: Tensor
    """Indices of samples, shape (m,)."""
    place: Tensor
    """Positions in 0 … T − 1, shape (m,), for layers that run on T positions."""
    share: Tensor
    """Positions divided by T, shape (m,), for all other layers."""
    length: int
    """T; 0 if the samples have no positions."""
    mean: float
    """Mean number of positions per sample; 0 if the samples have no positions."""

    @classmethod
    def of(cls, samples: Samples, count: int, generator: torch.Generator) -> Drawn:
        """Draw at most ``count`` positions other than padding, without repetition."""
        mask = counted_positions(samples)
        if mask is None:
            sample = torch.randint(len(samples), (count,), generator=generator)
            share = torch.rand(count, generator=generator)
            return cls(sample, torch.zeros_like(sample), share, 0, 0.0)
        sample, place = mask.cpu().nonzero(as_tuple=True)
        some = torch.randperm(len(sample), generator=generator)[:count]
        some = some.sort().values
        length, mean = mask.shape[1], len(sample) / len(samples)
        return cls(sample[some], place[some], place[some] / length, length, mean)

    def __len__(self) -> int:
        return len(self.sample)

    def within(self, start: int, count: int, places: int) -> tuple[Tensor, Tensor]:
        """Return the positions in samples ``start … start + count - 1``.

        Parameters
        ----------
        start, count : int
        places : int
            Number of positions that the layer runs on.

        Returns
        -------
        tuple of Tensor
            Index of the sample, from 0 for ``start``, and position.
        """
        here = (self.sample >= start) & (self.sample < start + count)
        place = self.place if places == self.length else (self.share * places).long()
        return self.sample[here] - start, place[here]

    def weight(self, places: int) -> float:
        """Return the mean number of positions of a sample per drawn position."""
        return (self.mean if places == self.length else places) / len(self)
