"""Wall time of the parts of a run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Costs:
    """Wall seconds of the parts of all passes, over all resumptions."""

    curvature: float = 0.0
    """Forward and backward passes, with the selection of the blocks."""
    building: float = 0.0
    """Problems of the blocks."""
    solver: float = 0.0
    """Solver, for all blocks of a pass together."""
    acceptance: float = 0.0
    """Held-out losses that decide on the moves."""

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time spent within to a part."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - begin)

    def seconds(self) -> dict[str, float]:
        """Return the seconds by part."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, seconds: Mapping[str, float]) -> Costs:
        """Return the costs of a checkpoint; parts that it lacks are 0."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: float(value) for name, value in seconds.items() if name in known})
