"""Checks of the sizes that a model's files declare against the bytes that they contain.

The libraries that load models trust a file: a count of 2⁶⁰ in a GGUF header keeps its reader
busy forever, and a configuration of a million layers is built before missing weights are
noticed. So the header is parsed here first, and the model is built on torch's meta device,
without memory, to count its weights. GGUF is read by its specification, versions 2 and 3.
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

#: Size in bytes of each scalar type of GGUF values.
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS = {2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_STRING, _ARRAY = 8, 9
_DIMENSIONS, _NESTED = 4, 4
FREE_ITEMS = 1 << 17
"""Array items that a header may have independent of the file's size; gguf allocates about a
hundred bytes for each."""
FREE_WEIGHTS = 1 << 22
"""Number of weights and buffers that a model may have in addition to twice those in its files."""


@dataclass
class DeclaredSizes:
    """Numbers of tensors and weights in a model's files."""

    tensors: int = 0
    weights: int = 0
    largest: int = 1
    """Largest dimension of any tensor."""

    def add(self, shape: tuple[int, ...]) -> None:
        """Add a tensor."""
        self.tensors, self.weights = self.tensors + 1, self.weights + math.prod(shape)
        self.largest = max(self.largest, *shape, 1)

    def check(self, build: Callable[[], Any], config: Any) -> None:
        """Compare a configuration with the files.

        Parameters
        ----------
        build : callable
            Builds the model of the configuration.
        config
            Configuration of the ``transformers`` library.

        Raises
        ------
        ModelError
            If the model would have more layers than the files have tensors, or far more weights.
        """
        for name, count in _counts(config):
            most = self.tensors if name in _LAYERS else self.largest
            if count > most:
                raise ModelError(
                    f"it declares {name} = {count}, but its files allow at most {most}"
                )
        with torch.device("meta"):
            model = build()
        found = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
        if found > 2 * self.weights + FREE_WEIGHTS:
            raise ModelError(f"it declares {found} weights, but its files have {self.weights}")


_LAYERS = frozenset(
    {
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        *("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"),
    }
)


def _counts(config: Any) -> Iterator[tuple[str, int]]:
    """Yield the numbers of layers and experts in a configuration and in nested ones."""
    for name, value in vars(config).items():
        if hasattr(value, "to_dict"):
            yield from _counts(value)
        elif isinstance(value, int) and (name in _LAYERS or name.endswith("experts")):
            yield name, value


def declared_in_folder(folder: Path) -> DeclaredSizes | None:
    """Read the headers of a folder's safetensors files; None without any, or for an adapter."""
    files, found = sorted(folder.glob("*.safetensors")), DeclaredSizes()
    if not files or (folder / "adapter_config.json").exists():
        return None
    for file in files:
        with safe_open(regular(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                found.add(tuple(opened.get_slice(name).get_shape()))
    # Quantised weights are packed, at most two to a byte.
    found.weights = max(found.weights, 2 * sum(file.stat().st_size for file in files))
    return found


def declared_in_gguf(path: Path) -> DeclaredSizes:
    """Parse the header of a GGUF file.

    Raises
    ------
    ModelError
        If it is damaged, or declares more than the file contains.
    """
    with regular(path).open("rb") as file:
        if not (size := path.stat().st_size):
            raise ModelError(f"{path} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _GgufHeader(data, size).parse()


class _GgufHeader:
    """Parser of a GGUF header that never reads beyond the end of the file."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.at, self.order = data, size, 0, "<"
        self.items, self.alignment = 0, 32

    def parse(self) -> DeclaredSizes:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if self.number("4s") != b"GGUF":
            raise ModelError("it is not a GGUF file")
        if self.number("I") & 0xFFFF == 0:  # big-endian
            self.order = ">"
        tensors, entries = self.count(24), self.count(12)
        for _ in range(entries):
            self.entry()
        found, places = DeclaredSizes(), []
        for _ in range(tensors):
            self.take(self.count(1))
            dimensions = self.number("I")
            if not 0 < dimensions <= _DIMENSIONS:
                raise ModelError(f"a tensor declares {dimensions} dimensions")
            shape = tuple(self.number("Q") for _ in range(dimensions))
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(self.number("I"))]
            length = -(-math.prod(shape) // block) * width
            places.append((self.number("Q"), length))
            found.add(shape)
        room = self.size - -(-self.at // self.alignment) * self.alignment
        if sum(n for _, n in places) > room or any(at + n > room for at, n in places):
            raise ModelError(f"its tensors need more than the {max(0, room)} bytes that follow")
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
                raise ModelError(f"its header has {self.items} array items")
            if inner in _SCALARS:
                self.take(count * _SCALARS[inner])
            else:
                for _ in range(count):
                    self.value(inner, depth + 1)
        else:
            raise ModelError(f"its header has a value of the unknown type {kind}")

    def count(self, least: int) -> int:
        """Read the number of following items, each of which takes at least ``least`` bytes."""
        count = int(self.number("Q"))
        if count * least > (room := self.size - self.at):
            raise ModelError(f"its header declares {count} items where {room} bytes are left")
        return count

    def number(self, form: str) -> Any:
        return struct.unpack(self.order + form, self.take(struct.calcsize("<" + form)))[0]

    def take(self, length: int) -> bytes:
        if length > self.size - self.at:
            raise ModelError("it is truncated within its header")
        self.at += length
        return self.data[self.at - length : self.at]
