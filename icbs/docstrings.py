"""Docstrings as text for people; imports nothing that a command's help does not need."""

from __future__ import annotations

import re


def paragraphs(text: str) -> str:
    """Join the lines of each paragraph of a docstring, and remove code markup."""
    joined = [" ".join(part.split()) for part in text.split("\n\n")]
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", "\n\n".join(joined)).replace("``", "")
