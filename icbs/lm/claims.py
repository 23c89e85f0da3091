"""What a model's files claim of their sizes, held against the bytes that are there.

The libraries that load models believe a file: a count of 2⁶⁰ in a header of GGUF keeps its reader
busy for ever, and a configuration of a million layers is built before a weight is missed. So the
header is walked here first, and the model is built without memory (torch's meta device) and
counted. The layout is that of the GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from icbs.errors import ModelError
from icbs.export.safetensors_files import regular

#: Bytes of each scalar type of a GGUF value.
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS = {2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_STRING, _ARRAY = 8, 9
_DIMENSIONS, _NESTED = 4, 4
FREE_ITEMS = 1 << 17
"""Items of arrays that a header may list whatever the file's size; gguf keeps some hundred bytes
for each."""
FREE_WEIGHTS = 1 << 22
"""Weights and buffers that a model may have beyond twice those in its files."""


@dataclass
class Claims:
    """What the files of a model hold."""

    tensors: int = 0
    weights: int = 0
    largest: int = 1
    """Largest dimension of a tensor."""

    def add(self, shape: tuple[int, ...]) -> None:
        """Count a tensor."""
        self.tensors, self.weights = self.tensors + 1, self.weights + math.prod(shape)
        self.largest = max(self.largest, *shape, 1)

    def check(self, build: Callable[[], Any], config: Any) -> None:
        """Hold a configuration against the files.

        Parameters
        ----------
        build : callable
            Builds the model that the configuration describes.
        config
            Of the ``transformers`` library.

        Raises
        ------
        ModelError
            If the model would have more layers than the files have tensors, or far more weights.
        """
        for name, count in _counts(config):
            most = self.tensors if name in _LAYERS else self.largest
            if count > most:
                raise ModelError(f"it claims {name} = {count}, and its files allow at most {most}")
        with torch.device("meta"):
            model = build()
        found = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
        if found > 2 * self.weights + FREE_WEIGHTS:
            raise ModelError(f"it claims {found} weights, and its files hold {self.weights}")


_LAYERS = frozenset(
    {
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        *("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"),
    }
)


def _counts(config: Any) -> Iterator[tuple[str, int]]:
    """Yield how many modules a configuration, and those inside it, ask for."""
    for name, value in vars(config).items():
        if hasattr(value, "to_dict"):
            yield from _counts(value)
        elif isinstance(value, int) and (name in _LAYERS or name.endswith("experts")):
            yield name, value


def in_folder(folder: Path) -> Claims | None:
    """Read the headers of a folder's safetensors files; None where they are not the model."""
    files, found = sorted(folder.glob("*.safetensors")), Claims()
    if not files or (folder / "adapter_config.json").exists():
        return None
    for file in files:
        with safe_open(regular(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                found.add(tuple(opened.get_slice(name).get_shape()))
    # Quantised weights are packed, two to a byte at most.
    found.weights = max(found.weights, 2 * sum(file.stat().st_size for file in files))
    return found


def in_gguf(path: Path) -> Claims:
    """Walk the header of a GGUF file.

    Raises
    ------
    ModelError
        If it is damaged, or claims more than the file holds.
    """
    with regular(path).open("rb") as file:
        if not (size := path.stat().st_size):
            raise ModelError(f"{path} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Walk(data, size).claims()


class _Walk:
    """A position in a GGUF header that never leaves the file."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.at, self.order = data, size, 0, "<"
        self.items, self.alignment = 0, 32

    def claims(self) -> Claims:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if self.number("4s") != b"GGUF":
            raise ModelError("it is not a GGUF file")
        if self.number("I") & 0xFFFF == 0:  # written on a machine of the other byte order
            self.order = ">"
        tensors, entries = self.count(24), self.count(12)
        for _ in range(entries):
            self.entry()
        found, places = Claims(), []
        for _ in range(tensors):
            self.take(self.count(1))
            dimensions = self.number("I")
            if not 0 < dimensions <= _DIMENSIONS:
                raise ModelError(f"a tensor claims {dimensions} dimensions")
            shape = tuple(self.number("Q") for _ in range(dimensions))
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(self.number("I"))]
            length = -(-math.prod(shape) // block) * width
            places.append((self.number("Q"), length))
            found.add(shape)
        room = self.size - -(-self.at // self.alignment) * self.alignment
        if sum(n for _, n in places) > room or any(at + n > room for at, n in places):
            raise ModelError(f"its tensors claim more than the {max(0, room)} bytes that follow")
        return found

    def entry(self) -> None:
        name, kind = self.take(self.count(1)), self.number("I")
        if name == b"general.alignment":
            self.alignment = self.number(_INTEGERS.get(kind, "I"))
            if not 0 < self.alignment <= 1 << 20:
                raise ModelError(f"its alignment is {self.alignment}")
        else:
            self.value(kind, 0)

    def value(self, kind: int, depth: int) -> None:
        if kind in _SCALARS:
            self.take(_SCALARS[kind])
        elif kind == _STRING:
            self.take(self.count(1))
        elif kind == _ARRAY and depth < _NESTED:
            inner = self.number("I")
            count = self.count(_SCALARS.get(inner, 8))
            self.items += count
            if self.items > max(FREE_ITEMS, self.size >> 6):
                raise ModelError(f"its header lists {self.items} items in arrays")
            if inner in _SCALARS:
                self.take(count * _SCALARS[inner])
            else:
                for _ in range(count):
                    self.value(inner, depth + 1)
        else:
            raise ModelError(f"its header holds a value of type {kind}, which is unknown")

    def count(self, least: int) -> int:
        """Read a number of things of at least so many bytes each, all of which must be there."""
        count = int(self.number("Q"))
        if count * least > (room := self.size - self.at):
            raise ModelError(f"its header claims {count} things where {room} bytes are left")
        return count

    def number(self, form: str) -> Any:
        return struct.unpack(self.order + form, self.take(struct.calcsize("<" + form)))[0]

    def take(self, length: int) -> bytes:
        if length > self.size - self.at:
            raise ModelError("it ends within its header")
        self.at += length
        return self.data[self.at - length : self.at]
