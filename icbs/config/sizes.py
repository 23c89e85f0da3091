"""Sizes of memory as people write them."""

from __future__ import annotations

import re
from typing import Any

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGT", start=1)}


def parse_size(size: Any) -> Any:
    """Turn ``"6GB"`` or ``"500 MiB"`` into bytes; anything else stays as it is.

    Raises
    ------
    ValueError
        If a word is no size.
    """
    if not isinstance(size, str):
        return size
    match = re.fullmatch(r"\s*([\d.]+(?:E\+?\d+)?)\s*([KMGT]?I?)B?\s*", size.upper())
    try:
        if match is not None and match[2] != "I":
            return int(float(match[1]) * UNITS[match[2]])
    except (ValueError, OverflowError):  # 1.2.3, or 1e400
        pass
    raise ValueError("should be a number of bytes, such as 6e9, '6GB' or '500MiB'")


def spell(size: float) -> str:
    """Write bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError
