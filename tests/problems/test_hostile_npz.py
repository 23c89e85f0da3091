"""Damaged and hostile ``.npz`` files raise FormatError before memory is allocated for them."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from hostile import reads_or_refuses, refuse
from problem_cases import SMALL

from problems import npz


def packed(entries, method=zipfile.ZIP_STORED):
    """Make a zip of raw entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def npy_claiming(header, body=b"", version=(1, 0)):
    """Make an .npy with a given header."""
    text = header.encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + body


def npz_with(**changed):
    """Make a problem file with some entries replaced (None: omitted)."""
    entries = {
        "format": npy(npz.FORMAT),
        "cardinalities": npy(np.array([1])),
        "offset": npy(np.array(0.0)),
        "Q": npy(np.eye(2)),
    } | changed
    return packed([(f"{name}.npy", body) for name, body in entries.items() if body is not None])


def claiming(shape, descr="<f8", body=b""):
    return npy_claiming(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}", body)


NPZ = {
    "empty": (b"", "not a readable .npz"),
    "text": (b"hello", "not a readable .npz"),
    "a bare array": (npy(np.eye(2)), "not a readable .npz"),
    "an empty zip": (packed([]), "'format' entry is not"),
    "another npz": (packed([("Q.npy", npy(np.eye(2)))]), "'format' entry is not"),
    "an unknown entry": (npz_with(x=npy(np.eye(2))), "the unknown entry 'x.npy'"),
    "another version": (npz_with(format=npy("icbs-qubo-99")), "'format' entry is not"),
    "a format of numbers": (npz_with(format=npy(1)), "'format' has dtype int64"),
    "no Q": (npz_with(Q=None), "the entry 'A' is missing"),
    "no linear": (npz_with(Q=None, A=npy(np.eye(2))), "the entry 'linear' is missing"),
    "no k": (npz_with(cardinalities=None), "the entry 'cardinalities' is missing"),
    "no offset": (npz_with(offset=None), "the entry 'offset' is missing"),
    "no cardinality at all": (npz_with(cardinalities=npy(np.zeros(0, int))), "one for each group"),
    "k too large": (npz_with(cardinalities=npy(np.array([3]))), r"k is 3; it must lie in \[0, 2"),
    "k beyond int64": (
        npz_with(cardinalities=npy(np.array([2**64 - 1], dtype=np.uint64))),
        "k is 18446744073709551615",
    ),
    "several k without groups": (npz_with(cardinalities=npy(np.array([1, 1]))), "pass groups"),
    "groups out of range": (npz_with(groups=npy(np.array([0, 7]))), "labels 0 … 7"),
    "groups of another length": (npz_with(groups=npy(np.array([0]))), "groups has shape"),
    "groups of floats": (npz_with(groups=npy(np.zeros(2))), "'groups' has dtype float64"),
    "objects": (npz_with(Q=npy(np.array([[None]]))), "'Q' has dtype object"),
    "records": (npz_with(Q=npy(np.zeros((1, 1), "f8,i4"))), "'Q' has dtype"),
    "complex numbers": (npz_with(Q=npy(np.eye(2) * 1j)), "'Q' has dtype complex128"),
    "text for Q": (npz_with(Q=npy(np.array([["a"]]))), "'Q' has dtype <U1"),
    "NaN": (npz_with(Q=npy(np.full((2, 2), np.nan))), r"Q\[0, 0\] is nan"),
    "NaN for an offset": (npz_with(offset=npy(np.nan)), "offset is nan"),
    "not symmetric": (npz_with(Q=npy(np.triu(np.ones((2, 2))))), "not symmetric"),
    "not square": (npz_with(Q=npy(np.ones((2, 3)))), "must be square"),
    "Q of one dimension": (npz_with(Q=npy(np.ones(2))), "expected 2 dimensions"),
    "Q of 40 dimensions": (npz_with(Q=claiming((1,) * 40)), "expected 2 dimensions"),
    "A and linear apart": (
        npz_with(Q=None, A=npy(np.eye(2)), linear=npy(np.ones(3))),
        "A has 2 columns but linear has 3",
    ),
    "a claim of terabytes": (npz_with(Q=claiming((10**6, 10**6))), "does not match its .* bytes"),
    "a claim beyond int64": (npz_with(Q=claiming((2**62, 2**62))), "does not match its"),
    "a negative shape": (npz_with(Q=claiming((-1, 2))), r"shape \(-1, 2\)"),
    "two negative shapes": (npz_with(Q=claiming((-1, -4), body=b"\0" * 32)), "expected 2 dim"),
    "a cut off array": (npz_with(Q=npy(np.eye(2))[:-8]), "does not match its"),
    "a longer array": (npz_with(Q=npy(np.eye(2)) + b"\0" * 8), "does not match its"),
    "a shape of words": (npz_with(Q=claiming("('a', 'b')")), "'Q' is not a .npy array"),
    "a header that runs code": (
        npz_with(Q=npy_claiming("{'descr': __import__('os').system('true')}")),
        "'Q' is not a .npy array",
    ),
    "a header of brackets": (npz_with(Q=npy_claiming("(" * 9000)), "'Q' is not a .npy array"),
    "a header too long": (npz_with(Q=npy_claiming(" " * 60000)), "'Q' is not a .npy array"),
    "a later version": (npz_with(Q=npy_claiming("{}", version=(3, 0))), "'Q' is not a .npy array"),
    "an unknown version": (
        npz_with(Q=npy_claiming("{}", version=(9, 9))),
        "'Q' is not a .npy array",
    ),
    "no magic": (npz_with(Q=b"PK nothing of the kind"), "'Q' is not a .npy array"),
    "an empty entry": (npz_with(Q=b""), "'Q' is not a .npy array"),
    "a pickle": (npz_with(Q=b"\x80\x04K\x01."), "'Q' is not a .npy array"),
}


@pytest.mark.parametrize("case", NPZ)
def test_npz(tmp_path, case):
    content, match = NPZ[case]
    refuse(tmp_path, content, "npz", match)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_with_an_entry_twice(tmp_path):
    body = npy(np.eye(2))
    refuse(tmp_path, packed([("Q.npy", body), ("Q.npy", body)]), "npz", "the duplicate entry")


def test_npz_that_is_a_bomb(tmp_path):
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("Q.npy", "w") as file,
    ):
        file.write(claiming((6400, 6400)))
        for _ in range(320):
            file.write(bytes(2**20))
    content = buffer.getvalue()
    assert len(content) < 2 * 2**20
    refuse(tmp_path, content, "npz", "would unpack to 320 MiB, more than the 256 MiB")


def test_npz_with_a_wrong_size_in_its_directory(tmp_path):
    """The unpacked size in the directory is a claim too: reading must stop at it."""
    body = npy(np.eye(2))
    content = bytearray(npz_with())
    claims = struct.pack("<I", len(body))
    at = content.rindex(claims, 0, content.rindex(b"Q.npy"))  # the directory's file_size
    content[at : at + 4] = struct.pack("<I", len(body) + 2**31)
    refuse(tmp_path, bytes(content), "npz", "would unpack to|does not match its|not a readable")


def test_npz_with_a_password(tmp_path):
    content = bytearray(npz_with())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    refuse(tmp_path, bytes(content), "npz", "not a readable .npz.*(password|encrypted)")


def test_npz_with_an_unknown_compression(tmp_path):
    content = bytearray(npz_with())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] = 99
            at = content.find(signature, at + 1)
    refuse(tmp_path, bytes(content), "npz", "not a readable .npz")


@pytest.mark.parametrize("name", ["insert", "flip"])
def test_every_byte_of_an_npz(tmp_path, name):
    """Checksums detect flips in the data; flips in headers must be detected without them."""
    SMALL.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for at in range(0, len(whole), 2):
        content = bytearray(whole)
        if name == "flip":
            content[at] ^= 0xFF
        else:
            content[at:at] = b"\x00\xff"
        reads_or_refuses(tmp_path / "flipped", bytes(content), "npz")
