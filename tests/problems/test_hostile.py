"""Damaged, truncated and hostile files raise FormatError before memory is allocated for them."""

from __future__ import annotations

import pytest
from hostile import refuse

from problems.formats import read

# -- coordinate texts --------------------------------------------------------------------

UBQP = {
    "empty": ("", "no header"),
    "comments alone": ("# nothing\n\n", "no header"),
    "a billion variables": (
        "1000000000 1\n1 2 3.0\n",
        "claims 1000000000 variables and lists 1 couplings, which would take 7.45e",
    ),
    "a billion variables, no entries": ("1000000000 0\n", "at most 1048576 variables"),
    "more variables than integers": ("1" + "0" * 30 + " 1\n1 1 1\n", "has the header"),
    "more digits than doubles": ("1" + "0" * 400 + " 1\n1 1 1\n", "has the header"),
    "digits without end": ("9" * 10000 + " 1\n1 1 1\n", "has the header"),
    "a billion entries": ("3 1000000000\n1 2 3.0\n", "1000000000 entries but has 1"),
    "negative counts": ("-3 1\n1 1 1\n", "claims -3 variables"),
    "negative entries": ("3 -1\n", "claims 3 variables and -1 entries"),
    "header of words": ("three one\n1 2 3.0\n", "has the header 'three one'; expected n m"),
    "header of floats": ("3.0 1\n1 2 3.0\n", "has the header"),
    "cut off between lines": ("3 2\n1 2 3.0\n", "2 entries but has 1"),
    "cut off within a line": ("3 2\n1 2 3.0\n1 3", "not coordinate text"),
    "too many entries": ("3 1\n1 2 3.0\n1 3 1\n", "1 entries but has 2"),
    "index 0": ("3 1\n0 1 1.0\n", r"entry 1 \(0 1 1.0\) lies outside 1 … 3"),
    "index beyond n": ("3 2\n1 2 1.0\n1 4 1.0\n", r"entry 2 \(1 4 1.0\) lies outside"),
    "negative index": ("3 1\n-1 1 1.0\n", "lies outside"),
    "index that wraps": (f"3 1\n{-(2**63)} 1 1.0\n", "lies outside"),
    "index beyond int64": (f"3 1\n{2**63} 1 1.0\n", "not coordinate text"),
    "fractional index": ("3 1\n1.5 1 1.0\n", "not coordinate text"),
    "whole float as index": ("3 1\n1.0 1 1.0\n", "not coordinate text"),
    "NaN": ("3 1\n1 2 nan\n", r"entry 1 \(1 2 nan\) is not finite"),
    "infinity": ("3 1\n1 2 -inf\n", "is not finite"),
    "overflow": ("3 1\n1 2 1e999\n", "is not finite"),
    "overflow when doubled": ("3 1\n1 2 1.7e308\n", "it must be finite"),
    "duplicate": ("3 2\n1 2 1\n1 2 1\n", r"entry 2 \(1 2 1.0\) is listed twice"),
    "duplicate across the diagonal": ("3 2\n1 2 1\n2 1 1\n", "each pair stands for both triangles"),
    "words": ("3 1\na b c\n", "not coordinate text"),
    "NUL": ("3 1\n1 \x00 1\n", "not coordinate text"),
    "not ASCII": ("3 1\n1 2 ½\n", "not coordinate text"),
    "a binary": (bytes(range(256)), "not coordinate text|header"),
    "note of words": (
        "# icbs cardinalities a\n1 0\n",
        "the comment 'cardinalities' is not a list of integers: 'a'",
    ),
    "note of NaN": (
        "# icbs offset nan\n# icbs cardinalities 1\n1 0\n",
        "'nan' is not a finite number",
    ),
    "note without a number": ("# icbs offset x\n1 0\n", "'x' is not a finite number"),
    "note twice": ("# icbs offset 1\n# icbs offset 2\n1 0\n", "different values of 'offset'"),
    "note behind the data": ("1 1\n1 1 1\n# icbs cardinalities 2\n", r"k is 2; it must lie in"),
    "note of later days": (
        "# icbs weights 1 2\n1 0\n",
        "unknown comment '# icbs weights 1 2'",
    ),
    "note of underscores": (
        "# icbs cardinalities 1_0\n1 0\n",
        "'cardinalities' is not a list of integers: '1_0'",
    ),
    "header of underscores": ("1_0 0\n", "has the header '1_0 0'"),
    "spins": ("# vartype=SPIN\n1 0\n", "unsupported type of variables 'SPIN'"),
    "groups of another length": (
        "# icbs cardinalities 1 1\n# icbs groups 0 1\n3 0\n",
        r"groups has shape \(2,\)",
    ),
    "groups out of range": (
        "# icbs cardinalities 1 1\n# icbs groups 0 1 9\n3 0\n",
        "labels 0 … 9",
    ),
    "k too large": ("# icbs cardinalities 4\n3 0\n", r"k is 4; it must lie in \[0, 3\]"),
    "several k and no groups": ("# icbs cardinalities 1 2\n3 0\n", "pass groups with it"),
}


@pytest.mark.parametrize("case", UBQP)
@pytest.mark.filterwarnings("error")
def test_coordinate_text(tmp_path, case):
    content, match = UBQP[case]
    own = "icbs cardinalities" in str(content)
    refuse(tmp_path, content, "ubqp", match, **({} if own else {"k": 1}))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("0 999999999 1.0\n", "claims 1000000000 variables and lists 1 couplings"),
        (f"0 {2**63 - 1} 1.0\n", "at most 4096 variables"),
        ("-1 0 1.0\n", "lies outside 0 … 0"),
        ("0 1 1.0\n0 1 1.0\n", "listed twice"),
        ("0 1\n", "not coordinate text"),
    ],
)
def test_coordinate_text_without_a_header(tmp_path, content, match):
    refuse(tmp_path, content, "coo", match, k=1)


@pytest.mark.parametrize(
    "header", ["p qubo 0 3", "p cnf 0 3 0 1", "p qubo 0 x 0 1", "q qubo 0 3 0 1", "3 1"]
)
def test_header_of_qbsolv(tmp_path, header):
    refuse(tmp_path, f"{header}\n0 1 1\n", "qubo", "expected p qubo 0 n nodes couplers", k=1)


# -- LP, MPS, QPLIB ----------------------------------------------------------------------

LP = {
    "empty": ("", "truncated: an LP text ends with 'End'"),
    "a word": ("garbage", "truncated"),
    "only an end": ("End", "not an LP text: it starts without objective"),
    "no end": ("Minimize\n obj: x\nSubject To\n c: x = 1\nBinary\n x\n", "truncated"),
    "an end in a comment": ("Minimize\n obj: x\nBinary\n x\n\\ End", "truncated"),
    "NUL": ("Minimize\n obj: \x00 x\nEnd", "not an LP text: byte"),
    "a binary": (bytes(range(256)), "not an LP text: byte"),
    "syntax": ("Minimize\n obj: [ x * \nEnd", r"line 2 \('x \* '\): expected a bracket like"),
    "NaN": ("Minimize\n obj: nan x\nSubject To\n c: x = 1\nBinary\n x\nEnd", "no operator"),
    "overflow": ("Minimize\n obj: 1e999 x\nSubject To\n c: x = 1\nBinary\n x\nEnd", "finite"),
    "a fraction": ("Minimize\n obj: x\nSubject To\n c: x = 0.5\nBinary\n x\nEnd", "integer"),
    "an inequality": ("Minimize\n obj: x\nSubject To\n c: x <= 1\nBinary\n x\nEnd", "equality"),
    "continuous": (
        "Minimize\n obj: x\nSubject To\n c: x = 1\nEnd",
        "is continuous; all must be binary",
    ),
    "no constraint": ("Minimize\n obj: x\nBinary\n x\nEnd", "has no cardinality; pass k"),
}


@pytest.mark.parametrize("case", LP)
def test_lp(tmp_path, case):
    content, match = LP[case]
    refuse(tmp_path, content, "lp", match)


def test_lp_of_many_names_is_not_made_dense(tmp_path):
    names = [f"x{i}" for i in range(6000)]
    row = " + ".join(names)
    content = (
        f"Minimize\n obj: x0 + [ 2 x0 * x1 ]/2\nSubject To\n c: {row} = 1\nBinary\n"
        + "\n".join(names)
        + "\nEnd\n"
    )
    refuse(tmp_path, content, "lp", "claims 6000 variables and lists 1 couplings")


MPS_LINES = [
    "NAME x",
    "ROWS",
    " N obj",
    " E c",
    "COLUMNS",
    " M 'MARKER' 'INTORG'",
    " x obj 1 c 1",
    " y obj 1 c 1",
    "RHS",
    " RHS c 1",
    "BOUNDS",
    " BV B x",
    "QUADOBJ",
    " x y 1",
    "ENDATA",
]

MPS = {
    "no end": (14, None, "truncated: no ENDATA"),
    "no objective": (2, None, "unknown row 'obj'"),
    "an inequality": (3, " L c", "row 'c' is an inequality; a cardinality is an E row"),
    "two rows of a name": (3, " E obj", "unexpected row 'obj' of kind 'E'"),
    "a row of an unknown kind": (3, " X c", "unexpected row 'c' of kind 'X'"),
    "an unknown section": (8, "SOS1", "section 'SOS1' is not supported"),
    "a range": (8, "RANGES", "RANGES has entries"),
    "a line before all sections": (0, " x y", "outside any section"),
    "too few words": (6, " x obj", "2 words in section COLUMNS"),
    "continuous": (5, "*", "variable 'y' is continuous"),
    "NaN in a column": (6, " x obj nan c 1", "'nan' is not a finite number"),
    "overflow in a column": (6, " x obj 1e999 c 1", "'1e999' is not a finite number"),
    "Python's underscores": (6, " x obj 1_0 c 1", "'1_0' is not a finite number"),
    "an unknown row": (6, " x obj 1 d 1", "unknown row 'd'"),
    "a row twice in a column": (6, " x obj 1 obj 1", "'x' is listed twice in row 'obj'"),
    "two right-hand sides": (9, " RHS c 1 c 1", "row 'c' has two right-hand sides"),
    "an unknown bound": (11, " FR B x", "a bound 'FR' is not that of a binary"),
    "a wide bound": (11, " UP B x 2", "the bound UP 2 on 'x' is not that of a binary"),
    "a bound on nothing": (11, " BV B z", "unknown variable 'z'"),
    "an unknown product": (13, " x z 1", "unknown variable 'z'"),
    "an infinite product": (13, " x y inf", "'inf' is not a finite number"),
    "a product twice": (13, " x y 1\n y x 1", "a product is listed twice; QUADOBJ lists each pair"),
    "two quadratic sections": (14, "QMATRIX\nENDATA", "duplicate quadratic section"),
    "one triangle of a matrix": (12, "QMATRIX", "QMATRIX lists 'x' 'y' without the same entry"),
    "a fraction": (9, " RHS c 0.5", "requires a count of 0.5"),
    "a count too large": (9, " RHS c 1e300", "must be an integer"),
    "a sense": (1, "OBJSENSE\n UP\nROWS", "invalid or duplicate sense 'UP'"),
    "two senses": (1, "OBJSENSE\n MIN\n MAX\nROWS", "invalid or duplicate sense"),
    "another objective": (1, "OBJNAME\n c\nROWS", "section 'OBJNAME' is not supported"),
    "a quadratic row": (12, "QSECTION c", "QSECTION belongs to 'c'; only the objective 'obj'"),
    "a matrix of a row": (12, "QUADOBJ c", "QUADOBJ belongs to 'c'; only the objective 'obj'"),
    "a quadratic constraint": (12, "QCMATRIX c", "section 'QCMATRIX' is not supported"),
    "a quadratic free row": (3, " N f\n E c\nQSECTION f", "QSECTION belongs to 'f'"),
    "indicators": (14, "INDICATORS\n IF c x 1\nENDATA", "section 'INDICATORS' is not supported"),
    "a set's marker": (5, " M 'MARKER' 'SOSORG'", "unknown marker"),
    "a row called MARKER": (6, " x MARKER 1", "unknown row 'MARKER'"),
    "entries apart": (7, " y obj 1 c 1\n x c 1", "the entries of 'x' are not contiguous"),
    "sides of two sets": (9, " RHS c 1\n other obj 1", "RHS has a second set, 'other'"),
    "bounds of two sets": (11, " BV B x\n UP D y 1", "BOUNDS has a second set, 'D'"),
    "a fixed variable": (11, " FX B x 1", "'FX' is not that of a binary.*substitute the value"),
    "a low bound": (11, " UP B x 0", "the bound UP 0 on 'x' is not that of a binary"),
    "a negative bound": (11, " UP B x -1", "the bound UP -1 on 'x' is not that of a binary"),
    "a high lower bound": (11, " BV B x\n LO B x 1", "the bound LO 1 on 'x' is not that"),
    "no upper bound": (11, " LO B x 0", "'x' is an integer without the bound 1"),
    "semi-continuous": (11, " SC B x 1", "'SC' is not that of a binary"),
    "a section twice": (10, "RHS\n RHS obj 1\nBOUNDS", "duplicate section RHS"),
    "a section's line with more": (8, "RHS RHS c 1", "unexpected text after the section name RHS"),
    "a column called NAME": (8, "NAME obj 1\nRHS", "duplicate section NAME"),
    "names with blanks": (
        7,
        " y 1 obj 1 c 1",
        "6 words in section COLUMNS; names must not contain",
    ),
    "digits of other scripts": (6, " x obj ٣ c 1", "'٣' is not a finite number"),
}


@pytest.mark.parametrize("case", MPS)
def test_mps(tmp_path, case):
    at, line, match = MPS[case]
    lines = list(MPS_LINES)
    lines[at : at + 1] = [] if line is None else [line]
    refuse(tmp_path, "\n".join(lines), "mps", match)


@pytest.mark.parametrize("content", ["", "\n\n", bytes(range(256))])
def test_mps_of_nothing(tmp_path, content):
    refuse(tmp_path, content, "mps", "truncated|not an MPS text|outside any section")


QPLIB_LINES = [
    "name", "QBL", "minimize", "2", "1", "1", "2 1 3", "0", "1", "1 1", "0", "2", "1 1 1", "1 2 1",
    "1e30", "1", "0", "1", "0",
]  # fmt: skip

QPLIB = {
    "continuous": (1, "QCL", "has type 'QCL'; supported are only binaries"),
    "quadratic constraints": (1, "QBQ", "has type 'QBQ'"),
    "no type": (1, "Q", "has type 'Q'"),
    "no sense": (2, "up", "unknown sense 'up'"),
    "a billion variables": (3, "1000000000", "claims 1000000000 variables and lists 1 couplings"),
    "variables beyond int64": (3, "1" + "0" * 20, "is not an integer"),
    "negative variables": (3, "-1", "-1 lies outside 0"),
    "a billion constraints": (4, "1000000000", "has 1000000000 constraints on 2 variables"),
    "a billion products": (5, "1000000000", "1 … 2|is not an integer|expected 3 values"),
    "an index beyond n": (6, "3 1 3", "3 lies outside 1 … 2"),
    "an index of 0": (6, "2 0 3", "0 lies outside 1 … 2"),
    "an index of words": (6, "a 1 3", "'a' is not an integer"),
    "the upper triangle": (6, "1 2 3", "above the diagonal"),
    "too few values": (6, "2 1", "expected 3 values"),
    "too many values": (6, "2 1 0 3", "expected 3 values"),
    "a word for infinity that is none": (14, "1", r"is an inequality \(1.0 … inf\)"),
    "a starting point cut off": (18, "0\n0", "is truncated after line 20"),
    "more than all": (18, "0\n0\n0\n0\n0\n0\n0\n0\n0\n0", "text after the end"),
    "a name of another variable": (18, "0\n0\n0\n0\n0\n0\n0\n1\n3 x", "3 lies outside 1 … 2"),
    "a product of NaN": (6, "2 1 nan", "'nan' is not a finite number"),
    "a default of infinity": (7, "inf", "'inf' is not a finite number"),
    "a constant of words": (10, "none", "'none' is not a finite number"),
    "sides apart": (17, "2", r"constraint 1 is an inequality \(1.0 … 2.0\)"),
    "an open side": (17, "1.79769313486232E+308", r"is an inequality \(1.0 … inf\)"),
    "an infinity of words": (14, "large", "'large' is not a number"),
    "an infinity of NaN": (14, "nan", "'nan' is not a number"),
    "integers": (1, "QIL", "has type 'QIL'"),
    "mixed": (1, "QML", "has type 'QML'"),
    "digits of other scripts": (6, "٢ 1 3", "'٢' is not an integer"),
    "a fraction": (12, "1 1 2", "the coefficients of a cardinality must be equal"),
}


@pytest.mark.parametrize("case", QPLIB)
def test_qplib(tmp_path, case):
    at, line, match = QPLIB[case]
    lines = list(QPLIB_LINES)
    lines[at] = line
    refuse(tmp_path, "\n".join(lines), "qplib", match)


def test_qplib_with_a_duplicate_entry(tmp_path):
    lines = [*QPLIB_LINES[:5], "2", "2 1 3", *QPLIB_LINES[6:]]
    refuse(tmp_path, "\n".join(lines), "qplib", "duplicate entry")


@pytest.mark.parametrize("kept", range(len(QPLIB_LINES)))
def test_qplib_cut_off_anywhere(tmp_path, kept):
    refuse(tmp_path, "\n".join(QPLIB_LINES[:kept]), "qplib", f"is truncated after line {kept}")


@pytest.mark.parametrize("rest", ["", "\n0\n0\n0\n0\n0\n1\n2 0.5\n1\n1 x\n0\n# the end\n"])
def test_qplib_that_is_whole(tmp_path, rest):
    path = tmp_path / "whole.qplib"
    path.write_text("\n".join(QPLIB_LINES) + rest)
    assert read(path).energy([1, 1]) == 2.5  # ½·3 + 1
