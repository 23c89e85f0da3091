"""Formatting of numbers for people: percentages, standard errors, times, sizes and counts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import ByteSize

STANDARD_ERROR = "_standard_error"
"""Suffix of the name of a figure's standard error."""
_SHARES = ("accuracy", "agreement")


def metrics(figures: Mapping[str, float]) -> list[str]:
    """Return the names of the figures, without those of their standard errors."""
    return [name for name in figures if not name.endswith(STANDARD_ERROR)]


def is_share(name: str) -> bool:
    """Whether a figure is a share in [0, 1], judging by its name."""
    return name.endswith(_SHARES)


def label(name: str) -> str:
    """Return a figure's name with spaces."""
    return name.replace("_", " ")


def spell(name: str, figures: Mapping[str, float]) -> str:
    """Format a figure with its standard error, if there is one; empty if the figure is missing.

    The error has two significant digits, and the figure as many decimals as its error.
    """
    if name not in figures:
        return ""
    value, error = figures[name], figures.get(name + STANDARD_ERROR, 0.0)
    if not (error > 0 and math.isfinite(error) and math.isfinite(value)):
        return number(name, value)
    unit, scale = ("%", 100.0) if is_share(name) else ("", 1.0)
    decimals = max(0, 1 - math.floor(math.log10(scale * error)))
    return f"{scale * value:.{decimals}f}{unit} ± {scale * error:.{decimals}f}{unit}"


def number(name: str, value: float) -> str:
    """Format a figure's value: percent for a share, else four significant digits."""
    return f"{value:.2%}" if is_share(name) else significant(value)


def significant(value: float) -> str:
    """Format a number with four significant digits, with an exponent only if necessary."""
    if value != 0 and 1e-3 <= abs(value) < 1e6:
        digits = max(0, 3 - int(f"{value:.3e}".partition("e")[2]))
        return f"{value:.{digits}f}"
    return f"{value:.4g}"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 pass``, ``2 passes``, ``1,024 blocks``."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}" + (plural if count != 1 else "")


def clock(seconds: float) -> str:
    """Format a time as ``m:ss``, or ``h:mm:ss`` from one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """Format a time with its unit: ``12.3 s``, ``4:05 min`` or ``1:02:03 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{clock(seconds)} {'min' if seconds < 3600 else 'h'}"


def byte_size(size: float) -> str:
    """Write a number of bytes for people: ``6.0 GB``."""
    return ByteSize(size).human_readable(decimal=True, separator=" ")
