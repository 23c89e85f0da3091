"""The sum of several curvature sources."""

from __future__ import annotations

from collections import Counter

from icbs.curvature.source import Batch, Collector, CurvatureSource, PassSizes


class Sum(CurvatureSource):
    """Sum of the quadratic models of several sources.

    Parameters
    ----------
    *sources : CurvatureSource
    """

    def __init__(self, *sources: CurvatureSource) -> None:
        self.sources = sources
        self.draws_targets = any(source.draws_targets for source in sources)
        self.models_loss = any(source.models_loss for source in sources)
        self.selects_midway = any(source.selects_midway for source in sources)
        self.uses_rows = any(source.uses_rows for source in sources)

    def collectors(self, batch: Batch) -> list[Collector]:
        """Begin a pass of all sources, in their order."""
        return [collector for source in self.sources for collector in source.collectors(batch)]

    def check(self, batch: Batch) -> None:
        """Test every source on a few samples."""
        for source in self.sources:
            source.check(batch)

    def memory(self, sizes: PassSizes) -> dict[str, int]:
        """Add up the estimates of all sources."""
        total: Counter[str] = Counter()
        for source in self.sources:
            total.update(source.memory(sizes))
        return dict(total)
