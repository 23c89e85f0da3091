"""Opening files that nobody vouches for: regular ones, by format and digest, errors by name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from icbs.errors import RunFolderError, UncheckedFileWarning
from icbs.export.digests import tensors_digest
from icbs.export.writing import KEY
from problems.files import regular

LARGEST_TEXT = 64 << 20
"""Bytes of a manifest or a file of settings; what is larger is neither."""


def text_of(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """Read a regular file of UTF-8 text, of bounded size.

    Raises
    ------
    OSError
        If it is missing or can't be read.
    ValueError
        If it is not a regular file, is larger, or not UTF-8.
    """
    with regular(path).open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return content.decode("utf-8")


@contextmanager
def opened(
    path: str | Path, kind: str, form: str, older: str | None = None
) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """Yield a file's tensors and facts, if it is of the format and whole.

    Parameters
    ----------
    path : path
    kind : str
        What the file should be, in words.
    form : str
        Its format's name in the header.
    older : str, optional
        An earlier format, without a digest, that is read too, with a warning.

    Raises
    ------
    RunFolderError
        If it is missing, of another format, damaged, or if what is made of it inside fails.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            facts = _facts(path, file.metadata() or {}, kind, form, older)
            # Copies: a tensor mapped from the file would keep Windows from replacing it.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        if facts["format"] == form:
            stated = facts.pop("digest")
            if tensors_digest(facts, tensors) != stated:
                raise ValueError("its digest does not fit its content; it is damaged")
        yield tensors, facts
    except (OSError, SafetensorError, ValueError, LookupError, RuntimeError, TypeError) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} is not a readable {kind}: {error!s:.1000}") from error


def header(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a file's facts alone, as they stand.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            return dict(json.loads((file.metadata() or {}).get(KEY, "{}")))
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise RunFolderError(f"{path} is not a readable {kind}: {error!s:.1000}") from error


def _facts(
    path: str | Path, header: dict[str, str], kind: str, form: str, older: str | None
) -> dict[str, Any]:
    """Read the header of either format."""
    facts = json.loads(header[KEY]) if KEY in header else header
    if not isinstance(facts, dict):
        raise ValueError("its header is not a JSON object")
    found = facts.get("format")
    if found == form and KEY in header:
        return facts
    if older is None or found != older:
        known = str(found).rpartition("-")[0] == form.rpartition("-")[0]
        remedy = "; it is of another release: use that one, or make it anew" if known else ""
        raise RunFolderError(
            f"{path} is not a {kind} of format {form!r}, but {found!r:.80}{remedy}"
        )
    warnings.warn(
        f"{path} is of format {older!r}, which has no digest: damage to it may go unseen; save "
        "it again",
        UncheckedFileWarning,
        stacklevel=5,
    )
    return {key: value if key == "format" else json.loads(value) for key, value in facts.items()}
