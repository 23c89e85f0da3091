"""Headers, sections and arrays of dimod's binary files.

All numbers are little-endian. A header is a magic word, two bytes of version, the length of the
rest as a ``uint32``, and a JSON object padded with blanks; a section is a magic word of four
letters, a length, and as many bytes, of which the last may be padding. (Documented in the
docstrings of ``BinaryQuadraticModel.to_file`` and ``ConstrainedQuadraticModel.to_file``.)
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.errors import FormatError

_FLOATS = ("float32", "float64")
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


class ByteReader:
    """Sequential reader of bytes; reading past the end is an error.

    Parameters
    ----------
    content : bytes
    source : object
        Name of the source, for messages.
    """

    def __init__(self, content: bytes, source: object) -> None:
        self.content, self.source, self.at = memoryview(content), source, 0

    def take(self, size: int) -> memoryview:
        """Return the next bytes.

        Raises
        ------
        FormatError
            If there are not enough.
        """
        left = len(self.content) - self.at
        if not 0 <= size <= left:
            raise FormatError(
                f"{self.source} is truncated or damaged: it claims {size} bytes at {self.at}, "
                f"where {left} remain"
            )
        self.at += size
        return self.content[self.at - size : self.at]

    def array(self, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """Return the next ``count`` numbers, or records."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(kind.itemsize * count), kind, count)

    def header(self, magic: bytes) -> tuple[dict[str, Any], tuple[int, int]]:
        """Read a header: its JSON object, and its version."""
        if bytes(self.content[self.at : self.at + len(magic)]) != magic:
            raise FormatError(f"{self.source} does not begin with {magic.decode()!r}")
        self.take(len(magic))
        version = self.take(2)
        length = int(self.array("<u4", 1)[0])
        try:
            found = json.loads(bytes(self.take(length)))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the header of {self.source} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise FormatError(
                f"the header of {self.source} is a {type(found).__name__}; expected an object"
            )
        return found, (version[0], version[1])

    def section(self, magic: bytes, length: str = "<u4") -> ByteReader:
        """Return the content of the next section."""
        if bytes(self.take(len(magic))) != magic:
            raise FormatError(f"{self.source} has no section {magic.decode()!r} at {self.at - 4}")
        size = int(self.array(length, 1)[0])
        return ByteReader(bytes(self.take(size)), f"{self.source}, section {magic.decode()}")

    def rest(self) -> bytes:
        """Return the remaining bytes."""
        return bytes(self.take(len(self.content) - self.at))


def floats(header: dict[str, Any], source: object) -> np.dtype[Any]:
    """Return the dtype of the biases, from a header."""
    return _dtype(header, "dtype", _FLOATS, source)


def integers(header: dict[str, Any], name: str, source: object) -> np.dtype[Any]:
    """Return a dtype of indices, from a header."""
    return _dtype(header, name, _INTEGERS, source)


def shape(header: dict[str, Any], source: object) -> tuple[int, int]:
    """Return the numbers of variables and of products, from a header."""
    match header.get("shape"):
        case [int(n), int(m)] if min(n, m) >= 0 and max(n, m) < 1 << 48:
            return n, m
    raise FormatError(f"{source} claims the shape {header.get('shape')!r:.60}; expected [n, m]")


def _dtype(
    header: dict[str, Any], name: str, known: tuple[str, ...], source: object
) -> np.dtype[Any]:
    if (found := header.get(name)) not in known:
        raise FormatError(f"{source} has the {name} {found!r:.40}; supported: {', '.join(known)}")
    return np.dtype(found).newbyteorder("<")
