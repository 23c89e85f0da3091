"""Suggestions of similar names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def did_you_mean(name: Any, known: Iterable[str], most: int = 1) -> str:
    """Return ``" (did you mean 'anneal'?)"`` if a known name is similar, else an empty string.

    Parameters
    ----------
    name : object
        The unknown name.
    known : iterable of str
        The known names.
    most : int
        Largest number of names that are suggested, the most similar first.
    """
    spelled = {word.casefold(): word for word in known}
    near = get_close_matches(str(name).casefold(), spelled, n=most, cutoff=0.6)
    if not near:
        return ""
    *others, last = (repr(spelled[word]) for word in near)
    return f" (did you mean {', '.join(others)}{' or ' if others else ''}{last}?)"
