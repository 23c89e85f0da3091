"""Speed of the floating-point types on a device, found by a trial."""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812

from icbs.config import Precision
from icbs.errors import SlowPrecisionWarning
from problems.warn import warn

_SIZE, _REPEATS = 256, 3
_SLOWER = 1.5
"""Ratio of the times from which a type is called slow."""


def warn_if_slow(precision: Precision, device: torch.device) -> None:
    """Warn of a precision in which a processor is slower than in float32.

    Processors without instructions for the type convert each number: a language model then runs
    five to ten times slower instead of faster.
    """
    if precision == "float32" or device.type != "cpu":
        return
    ratio = relative_time(precision)
    if ratio > _SLOWER:
        warn(
            f"this processor multiplies matrices in {precision} {ratio:.0f} times slower than in "
            "float32; leave precision at float32",
            SlowPrecisionWarning,
        )


@cache
def relative_time(precision: Precision) -> float:
    """Return the time of a product of matrices on the processor, divided by that in float32."""
    return _seconds(getattr(torch, precision)) / _seconds(torch.float32)


@torch.no_grad()
def _seconds(dtype: torch.dtype) -> float:
    matrix, times = torch.ones(_SIZE, _SIZE, dtype=dtype), []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        F.linear(matrix, matrix)
        times.append(time.perf_counter() - began)
    return min(times)
