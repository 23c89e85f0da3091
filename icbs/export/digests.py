"""Digests (BLAKE2b, 128 bits) that detect damaged and mixed-up files.

They don't protect against forgery. Tensors are hashed in place, at about 1 GB a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def new_hash() -> hashlib.blake2b:
    """Return an empty hash, to be updated piece by piece."""
    return hashlib.blake2b(digest_size=16)


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """Hash pieces in order, as hexadecimal text."""
    found = new_hash()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def json_digest(content: Any) -> str:
    """Hash a value's JSON form, independent of the order of keys."""
    return digest([json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()])


def file_digest(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_hash).hexdigest()


def tensors_digest(facts: Any, tensors: Mapping[str, Tensor]) -> str:
    """Hash facts (JSON) together with tensors: names, types, shapes and contents."""
    kinds = {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()}
    contents = (contents_of(tensors[name]) for name in sorted(tensors))
    return digest([json_digest([facts, kinds]).encode(), *contents])


def described(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """Dtype, shape and contents of a tensor, for :func:`digest`."""
    yield f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    yield contents_of(tensor)


def contents_of(tensor: Tensor) -> memoryview:
    """Bytes of a tensor in C order; those of a contiguous one on the CPU are not copied."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
