"""Parsing of numbers in LP-like texts."""

from __future__ import annotations

import math
import re

from problems.errors import FormatError

#: A decimal number without its sign. No two parts can match the same digits, so that matching
#: takes linear time.
NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,5})?"

_SIGNED = re.compile(rf"[+-]?{NUMBER}", re.ASCII)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)


def is_number(word: str) -> bool:
    """Whether a word is a decimal number."""
    return _SIGNED.fullmatch(word) is not None


def number(word: str, where: object) -> float:
    """Return a finite decimal number.

    Raises
    ------
    FormatError
        If the word is anything else, including NaN, infinity and Python's ``1_000``.
    """
    if is_number(word) and math.isfinite(value := float(word)):
        return value
    raise FormatError(f"{where}: {word!r:.40} is not a finite number")


def extended(word: str, where: object) -> float:
    """Return a decimal number that may be infinite or overflow.

    Raises
    ------
    FormatError
        If the word is anything else, including NaN.
    """
    if is_number(word) or _INFINITY.fullmatch(word):
        return float(word)
    raise FormatError(f"{where}: {word!r:.40} is not a number")


def whole(word: str, where: object, least: int, most: int | None = None) -> int:
    """Return an integer between ``least`` and ``most``.

    Raises
    ------
    FormatError
        If the word is not an integer, or out of range.
    """
    if not re.fullmatch(r"[+-]?\d{1,18}", word, re.ASCII):
        raise FormatError(f"{where}: {word!r:.40} is not an integer")
    value = int(word)
    if value < least or (most is not None and value > most):
        raise FormatError(f"{where}: {value} lies outside {least} … {'' if most is None else most}")
    return value
