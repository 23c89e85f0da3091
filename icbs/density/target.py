"""The target of a density search, and intervals that state how certain an answer is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from icbs.density.judge import Measurement
from icbs.errors import ConfigError, TargetError
from icbs.formatting import STANDARD_ERROR, number, significant

Verdict = Literal["meets", "misses", "uncertain", "unknown"]
RESAMPLES = 2000
"""Number of bootstrap samples of an interval."""
ROUNDING = 1e-9
"""Excess over a limit that is attributed to rounding."""


@dataclass(frozen=True)
class Kind:
    """A kind of target."""

    metric: str
    """Name of the figure."""
    relative: bool
    """Whether the figure is compared with that of the dense model."""
    sign: float
    """Sign of the difference, pruned - dense, that counts as a loss of quality."""
    words: str
    allowed: Callable[[float], bool]
    """Whether a limit makes sense."""
    range: str
    """Description of these limits."""
    ratio: bool = False
    """Whether the limit is on the exponential of the difference."""


KINDS = {
    "max_loss_increase": Kind("loss", True, 1, "loss increase", lambda x: x >= 0, "0 or more"),
    "max_perplexity_ratio": Kind(
        "loss", True, 1, "perplexity ratio", lambda x: x >= 1, "1 or more", ratio=True
    ),
    "min_accuracy": Kind(
        "accuracy", False, 1, "accuracy", lambda x: 0 < x <= 1, "a share between 0 and 1"
    ),
    "max_accuracy_loss": Kind(
        "accuracy", True, -1, "accuracy loss", lambda x: 0 <= x < 1, "a share between 0 and 1"
    ),
}
"""Names of the targets, as arguments."""


@dataclass(frozen=True)
class Judgement:
    """A measured value of the target's quantity, with its confidence interval."""

    value: float
    low: float
    """Lower end of the interval; NaN if the uncertainty is not known."""
    high: float
    met: bool
    """Whether the value meets the target."""
    verdict: Verdict
    """``meets`` or ``misses`` if the whole interval does; otherwise ``uncertain``, or
    ``unknown`` without an interval."""


@dataclass(frozen=True)
class Target:
    """A limit on a figure of the pruned model."""

    name: str
    """A name of :data:`KINDS`."""
    limit: float

    @classmethod
    def of(cls, given: Mapping[str, float | None]) -> Target:
        """Return the one target that is given.

        Raises
        ------
        ConfigError
            If there is none, or there are several, or a limit is out of range.
        """
        found = {name: value for name, value in given.items() if value is not None}
        options = " | ".join(KINDS)
        if not found:
            raise ConfigError(f"no target is given; give one of {options}")
        if len(found) > 1:
            listed = ", ".join(f"{name} = {value:g}" for name, value in found.items())
            raise ConfigError(
                f"{len(found)} targets are given, which may contradict each other ({listed}); "
                "keep one"
            )
        ((name, limit),) = found.items()
        if not (math.isfinite(limit) and KINDS[name].allowed(limit)):
            raise ConfigError(f"{name} = {limit:g}: must be {KINDS[name].range}")
        return cls(name, float(limit))

    @property
    def kind(self) -> Kind:
        """The kind of target."""
        return KINDS[self.name]

    def __str__(self) -> str:
        comparison = "≤" if self.kind.relative else "≥"
        return f"{self.kind.words} {comparison} {self.spell(self.limit)}"

    def spell(self, value: float) -> str:
        """Format a value of the target's quantity."""
        if self.kind.metric == "accuracy":
            return number("accuracy", value)
        return significant(value)

    def check_dense(self, dense: Measurement) -> None:
        """Refuse a target that can't be measured, or that the dense model misses.

        Raises
        ------
        ConfigError
            If the metric is missing.
        TargetError
            If the dense model misses the target.
        """
        metric = self.kind.metric
        if metric not in dense.figures:
            known = ", ".join(n for n in dense.figures if not n.endswith(STANDARD_ERROR))
            raise ConfigError(
                f"{self.name} needs the figure {metric!r}, which is not measured; the figures are: "
                f"{known or 'none'}"
            )
        if self.kind.ratio and "perplexity" not in dense.figures:
            raise ConfigError(
                f"{self.name} needs the figure 'perplexity', which only language models have; use "
                f"max_loss_increase={math.log(self.limit):.4g}, which is the same in nats"
            )
        if not math.isfinite(dense.figures[metric]):
            raise TargetError(f"the {metric} of the dense model is {dense.figures[metric]}")
        if not self.kind.relative and dense.figures[metric] < self.limit:
            raise TargetError(
                f"the dense model misses the target already: its {metric} is "
                f"{self.spell(dense.figures[metric])}, and {self.name} is "
                f"{self.spell(self.limit)}; choose a lower one"
            )

    def judge(self, dense: Measurement, found: Measurement, confidence: float) -> Judgement:
        """Compare a pruned model with the target.

        The interval is Wilson's for an accuracy by itself, and from the paired bootstrap over
        samples for a difference. Without values per sample it is a normal interval from the
        standard errors, as if the two models were measured on different samples.

        Parameters
        ----------
        dense, found : Measurement
            Of the dense and of the pruned model, on the same samples.
        confidence : float
            Probability that an interval contains the true value, such as 0.95.

        Raises
        ------
        ConfigError
            If the figure is missing.
        """
        metric = self.kind.metric
        if metric not in found.figures:
            raise ConfigError(f"the figure {metric!r} of {self.name} is not measured any more")
        low, high = self._interval(dense, found, confidence)
        value = found.figures[metric]
        if self.kind.relative:
            value = self.kind.sign * (value - dense.figures[metric]) + 0.0  # -0 is 0
        if self.kind.ratio:
            value, low, high = (_exp(x) for x in (value, low, high))
        met = self._meets(value)
        ends = {self._meets(low), self._meets(high)}
        verdict: Verdict = "uncertain" if len(ends) == 2 else "meets" if met else "misses"
        if math.isnan(low) or math.isnan(high):
            verdict = "misses" if math.isnan(value) else "unknown"
        return Judgement(value, low, high, met, verdict)

    def _meets(self, value: float) -> bool:
        # Differences of shares are rounded: 1 - 0.97 is above 0.03.
        if self.kind.relative:
            return value <= self.limit + ROUNDING
        return value >= self.limit - ROUNDING

    def _interval(
        self, dense: Measurement, found: Measurement, confidence: float
    ) -> tuple[float, float]:
        """Return the ends of the interval of the value, before the exponential."""
        metric = self.kind.metric
        own = found.each.get(metric)
        if not self.kind.relative:
            if own is not None and bool(((own == 0) | (own == 1)).all()):
                return wilson(int(own.sum()), len(own), confidence)
            return _normal(found.figures[metric], _error(found, metric), confidence)
        other = dense.each.get(metric)
        if own is not None and other is not None and own.shape == other.shape:
            return bootstrap_mean((self.kind.sign * (own - other) + 0.0).numpy(), confidence)
        change = self.kind.sign * (found.figures[metric] - dense.figures[metric])
        return _normal(change, math.hypot(_error(found, metric), _error(dense, metric)), confidence)


def wilson(right: int, count: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def bootstrap_mean(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron 1979); NaN for one value."""
    from scipy.stats import bootstrap

    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    if (values == values[0]).all():
        return float(values[0]), float(values[0])
    found: Any = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, (1 << 22) // len(values)),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        random_state=0,
    ).confidence_interval
    return float(found.low), float(found.high)


def _normal(value: float, error: float, confidence: float) -> tuple[float, float]:
    from scipy.stats import norm

    width = float(norm.ppf((1 + confidence) / 2)) * error
    return value - width, value + width


def _error(found: Measurement, metric: str) -> float:
    return found.figures.get(metric + STANDARD_ERROR, math.nan)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
