"""Whether the search can run on a device here, and the one line said where it can't."""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache

import torch


class GpuFallbackWarning(UserWarning):
    """No device was found, and the CPU solver answered instead."""


def find_device(wanted: str | None = None) -> torch.device | str:
    """Return the device to search on, or the reason why there is none.

    Parameters
    ----------
    wanted : str, optional
        A CUDA device ("cuda:1"); the current one when omitted. "cpu" is taken only under
        Triton's interpreter (``TRITON_INTERPRET=1``), which is for tests.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install 'triton>=3')"
    device = torch.device(wanted or "cuda")
    if device.type == "cpu":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return device if interpreted else "the device asked for is the CPU"
    if device.type != "cuda" or not torch.cuda.is_available():
        return "no CUDA device was found"
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        return f"there is no CUDA device {index}"
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """Name the device for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


@cache
def warn_fallback(reason: str) -> None:
    """Say once that the CPU answers, and why."""
    warnings.warn(
        f"anneal-gpu: {reason}; the CPU solver 'anneal' answers instead",
        GpuFallbackWarning,
        stacklevel=2,
    )
