"""States as text, eight variables to a byte, in base 64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt


def pack(x: npt.ArrayLike) -> str:
    """Encode a state of 0/1, shape (n,), as text."""
    return base64.b64encode(np.packbits(np.asarray(x, dtype=bool)).tobytes()).decode()


def unpack(text: str, n: int) -> npt.NDArray[np.uint8]:
    """Decode the output of :func:`pack`, shape (n,)."""
    bits: npt.NDArray[Any] = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(bits, count=n)
