"""Positions within samples: which are padding, and which are drawn as samples of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icbs.data.samples import IGNORED, Samples


def counted_positions(samples: Samples) -> Tensor | None:
    """Which positions are no padding, bool, shape (N, T); None where samples have none.

    The attention mask says so where there is one, else labels other than -100.
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
    """Which sample each is of, shape (m,)."""
    place: Tensor
    """Which of the T positions, shape (m,); for layers that run on T positions."""
    share: Tensor
    """The same as a share of the positions, shape (m,); for all other layers."""
    length: int
    """T, 0 if the samples have no positions of their own."""
    mean: float
    """Positions a sample, on average; 0 as above."""

    @classmethod
    def of(cls, samples: Samples, count: int, generator: torch.Generator) -> Drawn:
        """Draw ``count`` positions at most, without padding and without repetition."""
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
        """Positions of samples ``start … start + count - 1`` in a layer that runs on ``places``.

        Returns
        -------
        tuple of Tensor
            Which of those samples, from 0, and which place.
        """
        here = (self.sample >= start) & (self.sample < start + count)
        place = self.place if places == self.length else (self.share * places).long()
        return self.sample[here] - start, place[here]

    def weight(self, places: int) -> float:
        """How many positions of a sample one drawn position stands for, on average."""
        return (self.mean if places == self.length else places) / len(self)
