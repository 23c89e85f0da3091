"""All masks with given numbers of kept weights: their count, and each of them by its rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.config import LayerSettings
from icbs.config.constraints import group_of
from icbs.errors import ConfigError, LayerError
from icbs.model.layer import Layer
from icbs.model.plain import check_mask

Integers = npt.NDArray[np.int64]
MAX_MASKS = 5_000_000
"""Number of masks up to which all of them are evaluated by default."""


class MaskSet:
    """All masks that keep a given number of weights in each of several groups.

    The masks are ordered by rank, from 0: lexicographically within a group (weights earlier in
    the layer are kept first), the last group varying fastest.

    Parameters
    ----------
    groups : array of int64, shape (n,)
        Group of each weight, in 0 … number of groups - 1.
    kept : array of int64
        Number of weights that each group keeps.
    """

    def __init__(self, groups: Integers, kept: Integers) -> None:
        self.n = len(groups)
        self.members = [np.flatnonzero(groups == g) for g in range(len(kept))]
        self.kept = [int(k) for k in kept]
        sizes = [len(members) for members in self.members]
        if any(not 0 <= k <= size for k, size in zip(self.kept, sizes, strict=True)):
            raise ValueError(f"groups of {sizes} weights can't keep {self.kept}")

    @classmethod
    def of(
        cls,
        layers: Sequence[Layer],
        settings: LayerSettings,
        masks: Mapping[str, Tensor] | None = None,
    ) -> MaskSet:
        """Return the masks of a density, allocation and constraint.

        Parameters
        ----------
        layers : sequence of Layer
            Weights are numbered layer by layer, row by row.
        settings : LayerSettings
        masks : mapping of str to Tensor of bool, optional
            Masks whose numbers of kept weights hold for all, instead of the densities'.

        Raises
        ------
        ConfigError
            If each output or input has its own number of weights, and no masks are given.
        LayerError
            If a mask is missing or of another shape.
        """
        one = settings.allocation == "global" and settings.constraint == "layer"
        labels, kept = [], []
        for layer in layers:
            own = group_of(torch.arange(layer.size), layer.shape[1], settings.constraint)
            _, own = torch.unique(own, return_inverse=True)
            labels.append(own.cpu().numpy())
            kept.append(_kept(layer, labels[-1], settings, masks))
        if one:
            return cls(
                np.zeros(sum(map(len, labels)), np.int64), np.array([sum(map(np.sum, kept))])
            )
        first = np.cumsum([0, *map(len, kept[:-1])])
        return cls(
            np.concatenate([own + f for own, f in zip(labels, first, strict=True)]),
            np.concatenate(kept),
        )

    @property
    def log10_count(self) -> float:
        """Decimal logarithm of the number of masks, at once for any number of weights."""
        logs = (
            math.lgamma(len(m) + 1) - math.lgamma(k + 1) - math.lgamma(len(m) - k + 1)
            for m, k in zip(self.members, self.kept, strict=True)
        )
        return sum(logs) / math.log(10)

    @property
    def count(self) -> int:
        """Number of masks."""
        pairs = zip(self.members, self.kept, strict=True)
        return math.prod(math.comb(len(members), k) for members, k in pairs)

    @property
    def count_in_words(self) -> str:
        """Number of masks, as a power of ten if it is large."""
        log = self.log10_count
        return f"{self.count:,}" if log < 15 else f"about 10^{log:,.0f}"

    def check(self, most: int = MAX_MASKS) -> None:
        """Refuse more masks than can be evaluated.

        Raises
        ------
        ConfigError
            With the number of masks.
        """
        if self.log10_count < math.log10(most) + 1 and self.count <= most:
            return
        raise ConfigError(
            f"{self.n:,} weights have {self.count_in_words} masks of this density, and at most "
            f"{most:,} are evaluated; prune fewer weights (include, exclude), or take another "
            "density"
        )

    def masks(self, first: int, last: int) -> npt.NDArray[np.bool_]:
        """Return the masks of ranks ``first`` … ``last - 1``, shape (last - first, n).

        True where the weight is kept.
        """
        rank = np.arange(first, last, dtype=np.int64)
        found = np.zeros((len(rank), self.n), dtype=bool)
        for members, k in reversed(list(zip(self.members, self.kept, strict=True))):
            count = math.comb(len(members), k)
            found[:, members] = _combinations(rank % count, len(members), k)
            rank //= count
        return found


def _kept(
    layer: Layer,
    labels: npt.NDArray[np.int64],
    settings: LayerSettings,
    masks: Mapping[str, Tensor] | None,
) -> Integers:
    """Return the number of weights that each group of a layer keeps."""
    if masks is not None:
        mask = masks.get(layer.name)
        shape = tuple(layer.kind.weight.shape)
        if mask is not None:
            check_mask(layer.name, mask)
        if mask is None or tuple(mask.shape) != shape:
            raise LayerError(f"masks needs a mask of shape {shape} for {layer.name!r}")
        flat = layer.kind.matrix(mask).flatten().cpu().numpy()
        return np.bincount(labels, weights=flat).astype(np.int64)
    if settings.constraint == "layer":
        return np.array([layer.num_keep])
    if settings.pattern is None:
        raise ConfigError(
            f"constraint={settings.constraint!r} does not say how many weights each "
            f"{settings.constraint} keeps; give masks with those numbers (masks)"
        )
    return np.full(labels.max() + 1, settings.pattern.keep)


def _combinations(rank: Integers, n: int, k: int) -> npt.NDArray[np.bool_]:
    """Return the k-subsets of range(n) with given lexicographic ranks, shape (ranks, n).

    The subsets with the first element come first, ``C(n - 1, k - 1)`` of them, and so on
    (combinatorial number system, Knuth, TAOCP 7.2.1.3).
    """
    found = np.zeros((len(rank), n), dtype=bool)
    left, to_choose = rank.copy(), np.full(len(rank), k)
    for i in range(n):
        # Capped: the entries of ranks that occur are at most the number of subsets.
        counts = (math.comb(n - 1 - i, j - 1) if j else 0 for j in range(k + 1))
        with_it = np.array([min(count, 1 << 62) for count in counts])
        take = left < with_it[to_choose]
        found[:, i] = take
        left -= np.where(take, 0, with_it[to_choose])
        to_choose -= take
    return found
