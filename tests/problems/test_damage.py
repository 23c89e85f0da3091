"""Reading a file with any content gives a problem or FormatError, in short time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hostile import reads_or_refuses
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problem_cases import SMALL, reading_arguments

from problems import FormatError
from problems.formats import FORMATS, read, write

# -- paths that are not files --------------------------------------------------------------


@pytest.mark.parametrize("format", list(FORMATS))
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a pipe", "NUL"])
def test_only_regular_files_are_opened(tmp_path, format, kind):
    path = tmp_path / "odd"
    if kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path(os.devnull)
    elif kind == "NUL":
        path = "a\x00b"
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
        path = path if kind == "link to a pipe" else tmp_path / "pipe"
    with pytest.raises(FormatError, match="copy its content to a file|is not a valid path"):
        read(path, format)


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_link_to_a_file_is_read(tmp_path, samples, format):
    (tmp_path / "target").write_bytes(samples[format])
    (tmp_path / "link").symlink_to("target")
    assert read(tmp_path / "link", format, **reading_arguments(SMALL, format)).n == SMALL.n


# -- long words --------------------------------------------------------------------------


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "npz"])
@pytest.mark.parametrize("word", ["1", "x", "1e", "[", "1x "])
def test_a_word_without_end_is_refused_in_few_words(tmp_path, samples, format, word):
    """Quadratic time would take very long here."""
    before, _, after = samples[format].rpartition(b"3")  # an index or a coefficient
    content = before + word.encode() * 100_000 + b"y" + after
    path = tmp_path / "long"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read(path, format)
    assert len(str(caught.value)) < 1000


# -- anything ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A good file of each format."""
    folder = tmp_path_factory.mktemp("samples")
    for format in FORMATS:
        write(SMALL, folder / format, format)
    return {format: (folder / format).read_bytes() for format in FORMATS}


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_cut(tmp_path, samples, format):
    whole = samples[format]
    for length in range(len(whole)):
        reads_or_refuses(tmp_path / "cut", whole[:length], format)


@pytest.mark.parametrize("format", ["npz", "ubqp", "lp", "mps", "qplib"])
def test_a_cut_file_is_never_taken_for_another_problem(tmp_path, samples, format):
    """If the format states its own length, truncation is detected or changes nothing."""
    whole = samples[format].rstrip()
    path = tmp_path / "cut"
    for length in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:length])
        try:
            problem = read(path, format)
        except FormatError:
            continue
        np.testing.assert_array_equal(problem.Q, SMALL.Q)
        assert problem.cardinalities.tolist() == [1, 1]


WORDS = [
    *b"nan -inf 1e999 -1 0 999999999999 \x00 \xff [ ] /2 ^ * = <= : x0 End Binary Bounds".split(),
    *b"ENDATA QMATRIX RANGES 'MARKER' # ! c".split(),
    b"1" * 30,
    b"\n",
    b" ",
    b"# icbs groups 5",
]


@st.composite
def damage(draw):
    """Draw edits as (place in 0 … 1, operation, bytes)."""
    place = st.floats(0, 1, exclude_max=True)
    edit = st.one_of(
        st.tuples(place, st.just("insert"), st.sampled_from(WORDS)),
        st.tuples(place, st.just("replace"), st.binary(min_size=1, max_size=4)),
        st.tuples(place, st.just("delete"), st.integers(1, 30).map(bytes)),
        st.tuples(place, st.just("cut"), st.just(b"")),
    )
    return draw(st.lists(edit, min_size=1, max_size=4))


def damaged(content, edits):
    content = bytearray(content)
    for place, what, piece in edits:
        at = int(place * len(content))
        if what == "insert":
            content[at:at] = b" " + piece + b" "
        elif what == "replace":
            content[at : at + len(piece)] = piece
        elif what == "delete":
            del content[at : at + len(piece)]
        else:
            del content[at:]
    return bytes(content)


@pytest.mark.parametrize("format", list(FORMATS))
@settings(max_examples=150)
@given(edits=damage())
def test_damage(tmp_path_factory, samples, format, edits):
    path = tmp_path_factory.getbasetemp() / f"damaged-{format}"
    reads_or_refuses(path, damaged(samples[format], edits), format)


@pytest.mark.parametrize("format", list(FORMATS))
@settings(max_examples=30)
@given(content=st.binary(max_size=200))
@example(content=b"")
@example(content=b"\x00" * 100)
@example(content=b"PK\x05\x06" + b"\x00" * 18)
def test_noise(tmp_path_factory, format, content):
    reads_or_refuses(tmp_path_factory.getbasetemp() / f"noise-{format}", content, format)
