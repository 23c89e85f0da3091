"""Device discovery, and the warning about the CPU fallback."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

from problems.warn import warn


class GpuFallbackWarning(UserWarning):
    """No device was found; the CPU solver is used instead."""


def find_device(wanted: str | None = None) -> torch.device | str:
    """Return the device to use, or the reason why there is none.

    Parameters
    ----------
    wanted : str, optional
        A CUDA device ("cuda:1"); the current one when omitted. "cpu" is only valid with Triton's
        interpreter (``TRITON_INTERPRET=1``), which is for tests.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install 'triton>=3')"
    device = torch.device(wanted or "cuda")
    if device.type == "cpu":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return device if interpreted else "the requested device is the CPU"
    if device.type != "cuda" or not torch.cuda.is_available():
        return "no CUDA device was found"
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        return f"there is no CUDA device {index}"
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """Return the device's name for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


@cache
def warn_fallback(reason: str) -> None:
    """Warn once per reason that the CPU solver is used."""
    warn(
        f"anneal-gpu: {reason}; using the CPU solver 'anneal' instead",
        GpuFallbackWarning,
    )
