"""The project's safetensors files: written deterministically, read with checks.

All facts about the tensors are one JSON object in the safetensors header, with the format's
name and a digest of the content. Files may come from strangers or from broken disks, so that
reading checks file type, size, format and digest first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from icbs.errors import RunFolderError, UncheckedFileWarning
from icbs.export.digests import tensors_digest
from problems.files import atomic, regular
from problems.warn import warn

KEY = "icbs"
"""Header key of the JSON object; safetensors writes several keys in an arbitrary order."""
MAX_TEXT_BYTES = 64 << 20
"""Largest manifest or configuration file that is read."""


def write_tensors(
    path: str | Path, form: str, facts: Mapping[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write tensors and facts about them, atomically; equal content gives equal bytes.

    Parameters
    ----------
    path : path
    form : str
        Name and version of the format.
    facts : mapping
        Serialisable as JSON.
    tensors : dict of str to Tensor
        On the CPU, contiguous.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    content = {"format": form, **facts}
    content["digest"] = tensors_digest(content, tensors)
    header = {KEY: json.dumps(content, sort_keys=True)}
    try:
        with atomic(path) as temporary:
            save_file(tensors, temporary, header)
    except (OSError, SafetensorError) as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: Exception) -> RunFolderError:
    """Return the error for a file that can't be written, with the cause and the remedy."""
    return RunFolderError(
        f"{path} can't be written ({error}); free space there, make the folder writable, or "
        "choose another folder"
    )


@contextmanager
def open_tensors(
    path: str | Path, kind: str, form: str, older: str | None = None
) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """Yield a file's tensors and facts after checking its format and digest.

    Parameters
    ----------
    path : path
    kind : str
        Description of the file for error messages.
    form : str
        Name and version of the format.
    older : str, optional
        An earlier format without a digest, which is read too, with a warning.

    Raises
    ------
    RunFolderError
        If the file is missing, damaged or of another format; also for errors of malformed
        content that are raised within the context.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            facts = _facts(path, file.metadata() or {}, kind, form, older)
            # Copies: a tensor mapped from the file would keep Windows from replacing it.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        if facts["format"] == form:
            stated = facts.pop("digest")
            if tensors_digest(facts, tensors) != stated:
                raise ValueError("its digest does not match its content; it is damaged")
        yield tensors, facts
    except (OSError, SafetensorError, ValueError, LookupError, RuntimeError, TypeError) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} is not a readable {kind}: {error!s:.1000}") from error


def read_header(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a file's facts alone, unchecked.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            return dict(json.loads((file.metadata() or {}).get(KEY, "{}")))
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise RunFolderError(f"{path} is not a readable {kind}: {error!s:.1000}") from error


def read_text(path: str | Path, largest: int = MAX_TEXT_BYTES) -> str:
    """Read a regular file of UTF-8 text of bounded size.

    Raises
    ------
    OSError
        If it is missing or can't be read.
    ValueError
        If it is not a regular file, too large, or not UTF-8.
    """
    with regular(path).open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return content.decode("utf-8")


def _facts(
    path: str | Path, header: dict[str, str], kind: str, form: str, older: str | None
) -> dict[str, Any]:
    """Read the facts from the header of either format."""
    facts = json.loads(header[KEY]) if KEY in header else header
    if not isinstance(facts, dict):
        raise ValueError("its header is not a JSON object")
    found = facts.get("format")
    if found == form and KEY in header:
        return facts
    if older is None or found != older:
        known = str(found).rpartition("-")[0] == form.rpartition("-")[0]
        remedy = "; it is of another release: use that release, or create it again" if known else ""
        raise RunFolderError(
            f"{path} is not a {kind} of format {form!r}, but {found!r:.80}{remedy}"
        )
    warn(
        f"{path} is of format {older!r}, which has no digest, so that damage may go unnoticed; "
        "save it again",
        UncheckedFileWarning,
    )
    return {key: value if key == "format" else json.loads(value) for key, value in facts.items()}
