"""Suggestions of similar names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'anneal'?)"`` if a known name is similar, else an empty string.

    Parameters
    ----------
    name : object
        The unknown name.
    known : iterable of str
        The known names.
    """
    spelled = {word.casefold(): word for word in known}
    near = get_close_matches(str(name).casefold(), spelled, n=1, cutoff=0.6)
    return f" (did you mean {spelled[near[0]]!r}?)" if near else ""
