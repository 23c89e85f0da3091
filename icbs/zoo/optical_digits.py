"""Handwritten digits of 8 × 8 pixels (Alpaydin and Kaynak 1998, doi 10.24432/C50P49)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

FILE = Path(__file__).parent / "data" / "digits.npz"
"""Part of this package; see ``LICENSE.md`` next to it (CC BY 4.0)."""
TRAINING_SHARE = 0.75


def load_digits() -> tuple[Tensor, Tensor]:
    """Read all images and labels.

    Returns
    -------
    images : Tensor of float64, shape (1797, 8, 8)
        Ink in [0, 1].
    labels : Tensor of int64, shape (1797,)
        In 0 … 9.
    """
    with np.load(FILE, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    return torch.from_numpy(images).double() / 16, torch.from_numpy(labels).long()


def pooled(images: Tensor, side: int) -> Tensor:
    """Average images over squares of pixels.

    Parameters
    ----------
    images : Tensor, shape (samples, 8, 8)
    side : int
        Pixels of a side of a square.

    Returns
    -------
    Tensor, shape (samples, (8 / side)²)
    """
    return F.avg_pool2d(images[:, None], side).flatten(1)


def split(features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Divide samples at random into training and test, and standardise the features.

    Returns
    -------
    training, test : tuple of (features, labels)
        Features with mean 0 and standard deviation 1 over the training samples. The division is
        the same each time.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, rest = order.split([count := round(TRAINING_SHARE * len(order)), len(order) - count])
    mean, deviation = features[first].mean(dim=0), features[first].std(dim=0)
    scaled = (features - mean) / deviation
    return (scaled[first], labels[first]), (scaled[rest], labels[rest])
