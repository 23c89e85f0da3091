"""How a valid file is spoilt: by bytes, by words, and by the structure of its format."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

Mutate = Callable[[random.Random, bytes, bytes], bytes]

INTEGERS = (0, 1, 2, 127, 255, 256, 65535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
LARGE = ((1 << 63) - 1, 1 << 63, (1 << 64) - 1)
NUMBERS = (
    *("-1", "0", "1", "2", "30000", "4097", "1e400", "-1e400", "nan", "inf", "1e-320", "1.5"),
    *("99999999999", "9" * 400, "9" * 5000, "0x10", "1_0", "٣", "", "+", "1:2", "--1", "1e", "²"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 1 << 31, 1 << 63, 10**30, 10**400, 1.5, -0.0, 1e308),
    *(float("nan"), float("inf"), "", "0", "x" * 3000, "[/a]", "\x1b[31m", "\ud800", "$x$", "a:b"),
    *("os:system", "/dev/zero", [], [[]], {}, [1, "a", None], {"a": {"b": [1]}}, {"": 0}),
    *([30000, 30000], [1 << 62, 1 << 62], [-1, -1], list(range(300))),
)
WORDS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n\r\n", b"\x1b[0m", b"\xed\xa0\x80", b"\t",
    b"&a [*a]", b"<<: *a", b"? [1]\n: 2\n", b"!!python/name:os.system ", b"{{{{", b"[" * 400,
    b"- " * 400, b"a: &a [*a, *a]\n", b"1: 2\n", b"null: 1\n", b"2001-01-01: 1\n", b"%YAML 1.1\n",
    b'{"a":' * 3000, b"[" * 30000, b'"\\ud800"', b"NaN", b"1e999", b"//", b"/*", b"end\n",
)  # fmt: skip


def flip(draw: random.Random, data: bytes, other: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if spoilt:
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def insert(draw: random.Random, data: bytes, other: bytes) -> bytes:
    at = draw.randint(0, len(data))
    word = draw.choice((draw.randbytes(draw.choice((1, 4, 64))), draw.choice(WORDS)))
    return data[:at] + word + data[at:]


def delete(draw: random.Random, data: bytes, other: bytes) -> bytes:
    at = draw.randint(0, len(data))
    return data[:at] + data[at + draw.choice((1, 4, 8, 100)) :]


def truncate(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: draw.randint(0, len(data))]


def repeat(draw: random.Random, data: bytes, other: bytes) -> bytes:
    at = draw.randint(0, len(data))
    part = data[at : at + draw.choice((1, 16, 300))]
    return data[:at] + part * draw.choice((2, 3, 50)) + data[at:]


def splice(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: draw.randint(0, len(data))] + other[draw.randint(0, len(other)) :]


def integers(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Overwrite an aligned integer, mostly near the beginning, where headers are."""
    width, form = draw.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    value = draw.choice(INTEGERS + LARGE) & ((1 << 8 * width) - 1)
    reach = min(len(data), draw.choice((64, 512, len(data) + 1)))
    at = draw.randint(0, max(0, reach - width)) // draw.choice((1, width)) * 1
    return data[:at] + struct.pack(draw.choice("<>") + form, value) + data[at + width :]


BYTES: tuple[Mutate, ...] = (flip, insert, delete, truncate, repeat, splice, integers)


def numbers(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Put an extreme in place of a number."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?", data))
    if not found:
        return insert(draw, data, other)
    spot = draw.choice(found)
    return data[: spot.start()] + draw.choice(NUMBERS).encode() + data[spot.end() :]


def lines(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Drop, double, move or cross lines."""
    own, theirs = data.split(b"\n"), other.split(b"\n")
    at, to = draw.randrange(len(own)), draw.randrange(len(own))
    match draw.randrange(5):
        case 0:
            del own[at]
        case 1:
            own.insert(to, own[at])
        case 2:
            own[at], own[to] = own[to], own[at]
        case 3:
            own[at] = draw.choice(theirs)
        case _:
            own[at] = own[at].replace(b" ", draw.choice((b"", b"\t", b"  ", b",")), 1)
    return b"\n".join(own)


def words(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Put one word in place of another."""
    found = list(re.finditer(rb"[\w.\[\]:<>=+-]+", data))
    if not found:
        return insert(draw, data, other)
    a, b = draw.choice(found), draw.choice(found)
    return data[: a.start()] + b[0] + data[a.end() :]


TEXT: tuple[Mutate, ...] = (numbers, numbers, lines, words)


def odd(draw: random.Random, value: Any) -> Any:
    """Put a value of an odd type or size somewhere into a structure, or change a key."""
    value = copy.deepcopy(value)
    spots: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        pairs = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, part in pairs:
            spots.append((inner, key))
            if isinstance(part, dict | list):
                walk(part)

    if isinstance(value, dict | list):
        walk(value)
    if not spots:
        return draw.choice(VALUES)
    for _ in range(draw.choice((1, 1, 2))):
        inner, key = draw.choice(spots)
        old = inner[key] if not isinstance(inner, dict) or key in inner else None
        if isinstance(old, str) and draw.random() < 0.6 and old[:1] in ("{", "["):
            inner[key] = json.dumps(odd(draw, json.loads(old)))  # JSON within JSON
        elif isinstance(inner, dict) and draw.random() < 0.25:
            inner.pop(key, None)
            if draw.random() < 0.7:
                inner[str(draw.choice(VALUES))[:3000]] = old
        else:
            inner[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def as_json(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return json.dumps(odd(draw, json.loads(data))).encode()


def as_jsonl(draw: random.Random, data: bytes, other: bytes) -> bytes:
    own = data.split(b"\n")
    at = draw.randrange(len(own))
    own[at] = json.dumps(odd(draw, json.loads(own[at] or b"{}"))).encode()
    return b"\n".join(own)


def as_yaml(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return yaml.safe_dump(odd(draw, yaml.safe_load(data)), allow_unicode=False).encode()


def as_safetensors(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Change the header and write its length anew."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(odd(draw, json.loads(data[8 : 8 + length]))).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def as_gzip(draw: random.Random, data: bytes, other: bytes) -> bytes:
    inner = draw.choice(BYTES)(draw, gzip.decompress(data), other)
    return gzip.compress(inner, mtime=0)


def as_zip(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Spoil, rename or drop a member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    content = members.pop(name)
    choice = draw.random()
    if choice < 0.8:
        members[name] = draw.choice(BYTES + TEXT)(draw, content, other)
    elif choice < 0.9:
        members[draw.choice(("Q.npy", "A.npy", "x.npy", "../x", name + "y"))] = content
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return into.getvalue()


def as_dimod(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Change the header of a BQM or a CQM, or what follows it, which is a zip in a CQM."""
    ends = 14 + struct.unpack("<I", data[10:14])[0]
    header, body = data[14:ends], data[ends:]
    if draw.random() < 0.4:
        header = json.dumps(odd(draw, json.loads(header))).encode()
        return data[:10] + struct.pack("<I", len(header)) + header + body
    if data.startswith(b"DIMODBQM"):
        return data[:ends] + draw.choice((integers, *BYTES))(draw, body, other)
    return data[:ends] + as_zip(draw, body, other)


STRUCTURES: dict[str, tuple[Mutate, ...]] = {
    "bytes": (),
    "text": TEXT,
    "csv": TEXT,
    "json": (as_json, as_json, as_json, *TEXT),
    "jsonl": (as_jsonl, as_jsonl, *TEXT),
    "yaml": (as_yaml, as_yaml, as_yaml, *TEXT),
    "safetensors": (as_safetensors, as_safetensors, as_safetensors),
    "gzip": (as_gzip, as_gzip),
    "zip": (as_zip, as_zip, as_zip),
    "dimod": (as_dimod, as_dimod, as_dimod),
    "gguf": (integers, integers, integers),
}


def mutate(draw: random.Random, kind: str, data: bytes, other: bytes) -> bytes:
    """Spoil a file of a kind once or twice; what can't be parsed any more is spoilt by bytes."""
    for _ in range(draw.choice((1, 1, 1, 2))):
        own = STRUCTURES[kind]
        pool = own if own and draw.random() < 0.65 else BYTES
        try:
            data = draw.choice(pool)(draw, data, other)
        except Exception:
            data = draw.choice(BYTES)(draw, data, other)
    return data
