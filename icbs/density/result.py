"""The result of a density search: its points, and the answer with its certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from icbs.density.target import Judgement, Target
from icbs.export.headers import Header
from icbs.formatting import byte_size, counted, metrics, spell


class Point(Header):
    """A density that was tried, as in the file ``point.json``."""

    density: float
    """Density of the run."""
    kept: float
    """Share of the prunable weights that is kept."""
    value: float
    """Value of the target's quantity."""
    low: float
    """Lower end of its confidence interval; NaN if it is not known."""
    high: float
    met: bool
    """Whether the value meets the target."""
    verdict: Literal["meets", "misses", "uncertain", "unknown"]
    """Whether the whole interval meets the target; see
    :class:`icbs.density.target.Judgement`."""
    figures: dict[str, float]
    """Figures on the judge's samples, with standard errors."""
    size: int
    """Bytes of the compressed model."""
    macs: int
    """Multiply-accumulate operations with weights other than 0, for one sample."""
    seconds: float
    """Wall seconds of the run, with its recovery."""
    start: float | None = None
    """Density of the run whose masks were the start; None without one."""
    judged: str = ""
    """The target and confidence for which the point was judged."""

    def spelled(self, target: Target) -> str:
        """Format the value, of the quantity of a target, with its interval."""
        value = target.spell(self.value)
        if self.verdict == "unknown":
            return value
        return f"{value} ({target.spell(self.low)} to {target.spell(self.high)})"

    @property
    def outcome(self) -> str:
        """The verdict, or without an interval whether the value meets the target."""
        if self.verdict == "unknown":
            return "met" if self.met else "missed"
        return self.verdict

    @classmethod
    def judged_by(cls, judgement: Judgement, **fields: Any) -> Point:
        """Combine a judgement with the other fields."""
        return cls(
            value=judgement.value,
            low=judgement.low,
            high=judgement.high,
            met=judgement.met,
            verdict=judgement.verdict,
            **fields,
        )


@dataclass(frozen=True)
class Curve:
    """The points of a search so far, with what they were judged by."""

    target: Target
    judge: str
    """Description of the judge's samples."""
    confidence: float
    method: str
    """Description of the method."""
    dense: dict[str, float]
    """Figures of the dense model."""
    dense_size: int
    """Bytes of the dense model's tensors."""
    dense_macs: int
    points: Sequence[Point]
    """In decreasing order of density."""
    share_of: str = "the weights"
    """Total that a density is a share of."""

    def spell(self, point: Point) -> str:
        """Format the value of a point with its interval."""
        return point.spelled(self.target)

    def rows(self) -> list[dict[str, str]]:
        """Return the table, with the dense model in the first row, as text by column."""
        names = metrics(self.dense)
        quantity = f"{self.target.kind.words} ({self.confidence:.0%} interval)"
        found = [
            {
                "density": "1 (dense)",
                **{name: spell(name, self.dense) for name in names},
                quantity: "",
                "target": "",
                "file": byte_size(self.dense_size),
                "MACs": f"{self.dense_macs:,}",
                "seconds": "",
                "start": "",
            }
        ]
        for point in self.points:
            found.append(
                {
                    "density": f"{point.density:g}",
                    **{name: spell(name, point.figures) for name in names},
                    quantity: self.spell(point),
                    "target": point.outcome,
                    "file": byte_size(point.size),
                    "MACs": f"{point.macs:,}",
                    "seconds": f"{point.seconds:.1f}",
                    "start": "" if point.start is None else f"{point.start:g}",
                }
            )
        return found


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The answer of a search; the model has the weights of the density found."""

    density: float
    """The lowest density of the range that meets the target."""
    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, in the shape of the weight."""
    curve: Curve
    lowest_certain: float | None
    """The lowest density whose whole interval, and that of all denser ones, meets the target."""
    highest_missed: float | None
    """The highest density whose whole interval misses the target."""
    low: float | None = None
    """The lower end of the range of the search."""
    names: list[str] = field(default_factory=list)
    """Files of the curve in the folder of the search."""

    @classmethod
    def of(
        cls, density: float, masks: dict[str, Tensor], curve: Curve, low: float | None = None
    ) -> SearchResult:
        """Return the result for a density that meets the target."""
        certain: float | None = None
        for point in sorted(curve.points, key=lambda point: -point.density):
            if point.verdict != "meets":
                break
            certain = point.density
        missed = [point.density for point in curve.points if point.verdict == "misses"]
        return cls(density, masks, curve, certain, max(missed, default=None), low)

    @property
    def point(self) -> Point:
        """The point of the density found."""
        return next(point for point in self.curve.points if point.density == self.density)

    def lines(self) -> list[str]:
        """Return the answer as lines of text."""
        curve, point = self.curve, self.point
        lines = [
            f"density {self.density:g} meets the target {curve.target}: {curve.target.kind.words} "
            f"{curve.spell(point)}, {byte_size(point.size)} compressed, {point.macs:,} MACs"
        ]
        if curve.share_of != "the weights":
            lines.append(f"density is here the share of {curve.share_of} that is kept")
        if point.verdict == "unknown":
            lines.append("the uncertainty is not known: the figures have no standard errors")
        elif self.lowest_certain == self.density:
            lines.append(f"certain at {curve.confidence:.0%}: the whole interval meets the target")
        else:
            lines.append(
                f"{self._uncertain()}: intervals of {curve.confidence:.0%} contain the target; "
                "more samples narrow them"
            )
        if self.at_bound:
            lines.append(
                f"{self.density:g} is the lower end of the range, and sparser models were not "
                "tried; a lower one (low) tries them"
            )
        if (other := self._not_monotone()) is not None:
            lines.append(
                f"not monotone: density {other:g} misses the target, although it is denser"
            )
        lines.append(
            f"{counted(len(curve.points), 'density').replace('densitys', 'densities')} tried; "
            f"judged on {curve.judge}, which pruning did not see"
        )
        return lines

    @property
    def at_bound(self) -> bool:
        """Whether sparser models were not tried, as the answer is the lower end of the range."""
        return self.density == self.low == min(point.density for point in self.curve.points)

    def _uncertain(self) -> str:
        sure, missed = self.lowest_certain, self.highest_missed
        if sure is None:
            above = "" if missed is None else f" above {missed:g}, which misses it"
            return f"no density that was tried meets the target with certainty{above}"
        if missed is None:
            return f"uncertain below {sure:g}"
        return f"uncertain between {missed:g} and {sure:g}"

    def _not_monotone(self) -> float | None:
        failed = [p.density for p in self.curve.points if not p.met and p.density > self.density]
        return max(failed, default=None)

    def summary(self) -> dict[str, Any]:
        """Return the answer as a dict of JSON types."""
        return {
            "density": self.density,
            "target": {self.curve.target.name: self.curve.target.limit},
            "confidence": self.curve.confidence,
            "low": self.low,
            "judge": self.curve.judge,
            "lowest_certain": self.lowest_certain,
            "highest_missed": self.highest_missed,
            "points": [point.model_dump() for point in self.curve.points],
        }

    def __repr__(self) -> str:
        return (
            f"SearchResult(density={self.density:g}, target={str(self.curve.target)!r}, "
            f"points={len(self.curve.points)})"
        )

    def __str__(self) -> str:
        return "\n".join(self.lines())
