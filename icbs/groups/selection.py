"""Selection of the groups in the block of a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from icbs.config import PrunerConfig
from icbs.curvature.passes import Pass
from icbs.groups.grouping import Grouping, Pool
from icbs.groups.scores import gate_gradient
from icbs.model.gates import Gates, WidePart
from icbs.model.layer import Layer
from icbs.selection.block_selection import Tabu
from icbs.selection.selector import Selector

Float = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class GroupSelector(Selector):
    """One block of all groups that may move, or of the best ``block_size`` of them.

    In a block of some groups each pool has its share, half of it pruned: the pruned groups with
    the highest scores, and the kept ones with the lowest, without those on the tabu list.

    Parameters
    ----------
    grouping : Grouping
    config : PrunerConfig
    """

    def __init__(self, grouping: Grouping, config: PrunerConfig) -> None:
        self.grouping, self.config = grouping, config

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        """Return one block."""
        free = self._flags({name: tabu.free for name, tabu in tabus.items()})
        numbers = np.flatnonzero(free)
        size = self.config.block_size
        if size != "all" and len(numbers) > size:
            fresh = free & ~self._flags({name: tabu.active() for name, tabu in tabus.items()})
            numbers = self._best(size, self._scores(pass_info, generator), free, fresh)
        if not len(numbers):
            return {}
        gates = self.grouping.block(numbers)
        return {gates.name: gates}

    def _flags(self, by_layer: Mapping[str, torch.Tensor]) -> Flags:
        """Read a flag of each group at the weight that stands for it."""
        found = np.zeros(self.grouping.count, dtype=bool)
        for part in self.grouping.gates.parts:
            assert isinstance(part, WidePart)
            index, gate = part.representatives
            found[gate.cpu().numpy()] = by_layer[part.layer.name][index].cpu().numpy()
        return found

    def _scores(self, pass_info: Pass, generator: torch.Generator) -> Float:
        """Return the importance of each group by the setting ``selection``."""
        gates, name = self.grouping.gates, self.config.selection
        if name == "random":
            return torch.rand(len(gates), generator=generator, dtype=torch.float64).numpy()
        if name == "magnitude":
            return np.sqrt(gates.total([part.weights.double().square() for part in gates.parts]))
        mean = gate_gradient(pass_info, gates)
        return -mean if name == "taylor" else np.abs(mean)

    def _best(self, size: int, scores: Float, free: Flags, fresh: Flags) -> npt.NDArray[np.int64]:
        """Return the numbers of the groups in the block, in ascending order."""
        closed = self.grouping.closed() == 1
        total = int(free.sum())
        found = []
        for pool in self.grouping.pools:
            half = max(1, size * int(free[pool.members].sum()) // total // 2)
            for side, sign in ((closed, 1.0), (~closed, -1.0)):
                found.append(_top(pool, sign * scores, side & free, side & fresh, half))
        return np.sort(np.concatenate(found))


def _top(
    pool: Pool, ranked: Float, allowed: Flags, fresh: Flags, count: int
) -> npt.NDArray[np.int64]:
    """Return the groups of a pool that rank highest; tabu ones only if there are too few."""
    members = pool.members[allowed[pool.members]]
    order = np.lexsort((-ranked[members], ~fresh[members]))
    return members[order[:count]]
