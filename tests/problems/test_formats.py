"""Every format: round trips, and the conventions of other programs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from dimod.serialization import coo as dimod_coo
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ortools.linear_solver.python import model_builder
from problem_cases import (
    SMALL,
    all_states,
    any_problems,
    assert_same_problem,
    dense_problems,
    feasible_states,
    matrix,
    reading_arguments,
)
from qiskit_optimization.translators import to_docplex_mp

from problems import CardinalityQUBO, FormatError
from problems.formats import FORMATS, coo, mps, qplib, read, write
from problems.formats.bqm import to_bqm
from problems.formats.quadratic_program import to_quadratic_program

few = settings(max_examples=30)

TEXTS = ["ubqp", "mqlib", "qubo", "coo", "lp", "mps", "qplib"]


def parse(text, format, **options):
    """Read a text as a file of the format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem"
        path.write_bytes(text.encode())
        return read(path, format, **options)


def round_trip(problem, format):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem"
        write(problem, path, format)
        return read(path, format)


def pairs_of(problem):
    """Whole coefficients of the products, and the linear terms, from the matrix."""
    Q = matrix(problem)
    n = problem.n
    pairs = {(i, j): float(2 * Q[i, j]) for i in range(n) for j in range(i + 1, n) if Q[i, j]}
    return pairs, [float(v) for v in np.diag(Q)]


# -- round trips -------------------------------------------------------------------------


@pytest.mark.parametrize("format", TEXTS)
@few
@given(problem=any_problems(max_n=6))
def test_text_round_trip_keeps_energies_and_cardinalities(format, problem):
    assert_same_problem(problem, round_trip(problem, format))


@few
@given(any_problems(dtype=np.float32))
def test_npz_round_trip_keeps_everything(problem):
    again = round_trip(problem, "npz")
    assert again.hash == problem.hash
    assert again.dtype == problem.dtype
    assert again.is_factored == problem.is_factored


@pytest.mark.parametrize("format", TEXTS)
def test_numbers_round_trip_exactly(format):
    rng = np.random.default_rng(3)
    Q = rng.normal(size=(12, 12)) * 10.0 ** rng.integers(-12, 12, (12, 12))
    problem = CardinalityQUBO(Q + Q.T, 5, offset=0.1)
    again = round_trip(problem, format)
    np.testing.assert_array_equal(again.Q, problem.Q)
    assert again.offset == 0.1


@pytest.mark.parametrize("format", ["lp", "mps", "qplib"])
def test_more_than_ten_variables_keep_their_order(format):
    problem = CardinalityQUBO(np.diag(np.r_[np.zeros(11), 1.0, 2.0]), 3)
    assert_same_problem(problem, round_trip(problem, format))


@pytest.mark.parametrize("format", list(FORMATS))
def test_ending_chooses_the_format(tmp_path, format):
    for ending in FORMATS[format].endings:
        path = tmp_path / f"block{ending.upper()}"
        write(SMALL, path)
        assert_same_problem(SMALL, read(path, **reading_arguments(SMALL, format)))


def test_zero_problem_and_linear_problem():
    for format in TEXTS:
        for diagonal in (np.zeros(3), np.array([0.0, 1.0, 0.0])):
            problem = CardinalityQUBO(np.diag(diagonal), 2)
            assert_same_problem(problem, round_trip(problem, format))


def test_empty_groups_are_dropped_by_formats_with_rows():
    problem = CardinalityQUBO(np.eye(3), [1, 0, 1], groups=[0, 2, 2])
    assert_same_problem(problem, round_trip(problem, "mps"))


# -- other triangles, other signs --------------------------------------------------------


@few
@given(dense_problems(max_n=6, max_groups=1), st.randoms(use_true_random=False))
def test_ubqp_reads_either_triangle_in_any_order(problem, random):
    pairs, linear = pairs_of(problem)
    lines = [f"{i + 1} {i + 1} {v!r}" for i, v in enumerate(linear) if v]
    for (i, j), v in pairs.items():
        first, second = random.sample([i + 1, j + 1], 2)
        lines.append(f"{first}  {second}\t{v / 2!r}")
    random.shuffle(lines)
    text = "\n".join(["# a comment", f"{problem.n} {len(lines)}", *lines, ""])
    # The text stores no offset.
    shifted = CardinalityQUBO(problem.Q, problem.k)
    assert_same_problem(shifted, parse(text, "ubqp", k=problem.k))
    turned = parse(text, "mqlib", k=problem.k)
    states = all_states(problem.n)
    np.testing.assert_array_equal(turned.energy(states), -parse(text, "ubqp", k=0).energy(states))


@few
@given(dense_problems(max_n=6, max_groups=1))
def test_coo_reads_upper_lower_and_full_matrices(problem):
    pairs, linear = pairs_of(problem)
    nodes = [f"{i} {i} {v!r}" for i, v in enumerate(linear)]
    upper = [f"{i} {j} {v!r}" for (i, j), v in pairs.items()]
    lower = [f"{j} {i} {v!r}" for (i, j), v in pairs.items()]
    full = [f"{a} {b} {v / 2!r}" for (i, j), v in pairs.items() for a, b in ((i, j), (j, i))]
    shifted = CardinalityQUBO(problem.Q, problem.k)
    for lines in (upper, lower, full):
        text = "\n".join(nodes + lines)
        assert_same_problem(shifted, parse(text, "coo", k=problem.k))
        header = f"c qbsolv\np qubo 0 {problem.n} {len(nodes)} {len(lines)}\n"
        assert_same_problem(shifted, parse(header + text, "qubo", k=problem.k))


@few
@given(dense_problems(max_n=5, max_groups=1))
def test_coo_reads_files_of_dimod(problem):
    again = parse(dimod_coo.dumps(to_bqm(problem), vartype_header=True), "coo", k=0)
    assume(again.n == problem.n)  # a last variable without an entry goes unnoticed
    # dimod writes six decimals, and no offset.
    np.testing.assert_allclose(again.Q, problem.Q, atol=1e-6)


def test_the_sample_of_mqlib():
    # Its documentation: Q = [[5,-6,0],[-6,3,-1],[0,-1,1]], maximum 6 at (1, 0, 1).
    text = "# sample\n3 5\n1 1 5\n2 2 3\n3 3 1\n1 2 -6\n2 3 -1\n"
    problem = parse(text, "mqlib", k=2)
    np.testing.assert_array_equal(-problem.Q, [[5, -6, 0], [-6, 3, -1], [0, -1, 1]])
    assert problem.energy([1, 0, 1]) == -6


def test_reference_reader_gets_no_comments(tmp_path):
    path = tmp_path / "block.ubqp"
    coo.write(SMALL, path, comments=False)
    assert path.read_text() == "3 5\n1 1 1.0\n2 2 3.0\n3 3 -1.0\n1 2 -2.0\n1 3 0.5\n"
    again = coo.read(path, k=[1, 1], groups=[0, 0, 1])
    np.testing.assert_array_equal(again.Q, SMALL.Q)


MPS_HEAD = """* ½(x² + 4xy + 7y²) + x + y - 3 with x + y = 1
NAME example
ROWS
 N obj
 N ignored
 E card
COLUMNS
 M 'MARKER' 'INTORG'
"""
MPS_BODY = """ x obj 1 card 1
 x ignored 5
 y obj 1
 y card 1
 M 'MARKER' 'INTEND'
RHS
 rhs card 1
 rhs obj 3
BOUNDS
 UP bnd x 1
"""


@pytest.mark.parametrize(
    "section",
    [
        "QUADOBJ\n x x 1\n x y 2\n y y 7\n",
        "QUADOBJ\n x x 1\n y x 2\n y y 7\n",
        "QSECTION obj\n x x 1\n y x 2\n y y 7\n",
        "QMATRIX\n x x 1\n x y 2\n y x 2\n y y 7\n",
    ],
)
@pytest.mark.parametrize("sense", ["", "OBJSENSE\n MIN\n", "OBJSENSE MAX\n", "OBJSENSE\n MAX\n"])
def test_mps_halves(section, sense):
    head = MPS_HEAD.replace("ROWS", sense + "ROWS", 1)
    problem = parse(head + MPS_BODY + section + "ENDATA\n", "mps")
    sign = -1 if "MAX" in sense else 1
    expected = [0, 1 + 3.5, 1 + 0.5, 0.5 + 2 + 3.5 + 2]
    states = [[0, 0], [0, 1], [1, 0], [1, 1]]
    np.testing.assert_allclose(sign * problem.energy(states), np.array(expected) - 3)
    assert problem.k == 1


@few
@given(any_problems(max_n=5, max_m=0))
def test_or_tools_reads_the_same_optimum_from_mps(problem):
    # It reads no quadratic objectives, so the couplings are dropped.
    linear = CardinalityQUBO(
        np.diag(problem.diagonal),
        problem.cardinalities,
        groups=problem.groups,
        offset=problem.offset,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "linear.mps"
        write(linear, path)
        model = model_builder.Model()
        assert model.import_from_mps_file(str(path))
    solver = model_builder.Solver("sat")
    solver.solve(model)
    lowest = linear.energy(feasible_states(linear)).min()
    assert solver.objective_value == pytest.approx(lowest, abs=1e-6)


@few
@given(dense_problems(max_n=5))
def test_lp_reads_files_of_docplex(problem):
    text = to_docplex_mp(to_quadratic_program(problem)).export_as_lp_string()
    again = parse(text, "lp")
    states = all_states(problem.n)
    np.testing.assert_array_equal(again.is_feasible(states), problem.is_feasible(states))
    # docplex prints about nine digits.
    np.testing.assert_allclose(again.energy(states), problem.energy(states), rtol=1e-6, atol=1e-4)


def test_lp_halves_signs_and_names():
    text = """\\ a comment
Maximize
 obj: a + 2 b + [ 4 a * b + 6 a ^ 2 ] / 2 + 7
Subject To
 both: 2 a + 2 b = 2
Binary
 a b
End
"""
    problem = parse(text, "lp")
    np.testing.assert_allclose(problem.energy([[0, 0], [1, 0], [0, 1], [1, 1]]), [-7, -11, -9, -15])
    assert problem.k == 1


def test_qplib_reads_comments_defaults_and_halves():
    text = """! -------
! example
EXAMPLE   with words after the name
QBL       # binary, linear constraints
Maximize
2         # variables
1         # constraints

3         # lower triangle
1 1 1.0   (three lines)
2 1 2.0   |
2 2 7.0   |
1.0       default linear term
1         # others
2 -1.0
3.0       constant
2
1 1 1.0
1 2 1.0
1e20      infinity
1         default left-hand side
0
0         default right-hand side
1
1 1
"""
    problem = parse(text, "qplib")
    expected = [3, 3 - 1 + 3.5, 3 + 1 + 0.5, 3 + 0 + 0.5 + 1 + 3.5]
    np.testing.assert_allclose(-problem.energy([[0, 0], [0, 1], [1, 0], [1, 1]]), expected)
    assert problem.k == 1


def test_qplib_without_constraints_takes_k():
    text = "E\nQBN\nminimize\n2\n1\n2 1 -3\n0\n0\n0\n1e30\n0\n0\n0\n0\n0\n"
    problem = parse(text, "qplib", k=1)
    assert problem.energy([1, 1]) == -1.5
    with pytest.raises(FormatError, match="has no cardinality; pass k"):
        parse(text, "qplib")


# -- refusals ----------------------------------------------------------------------------


def test_format_must_be_known(tmp_path):
    with pytest.raises(
        FormatError, match="can't infer the format from the extension .*; pass one of npz, ubqp"
    ):
        write(SMALL, tmp_path / "block.bin")
    with pytest.raises(FormatError, match="unknown format 'xml'; known formats: npz"):
        read(tmp_path / "block.npz", "xml")
    with pytest.raises(FormatError, match="unknown dialect 'x'"):
        coo.write(SMALL, tmp_path / "block", "x")


@pytest.mark.parametrize("format", list(FORMATS))
def test_missing_file_stays_a_missing_file(tmp_path, format):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none", format)


@pytest.mark.parametrize("format", [name for name, each in FORMATS.items() if each.cardinality])
def test_a_cardinality_is_not_given_twice(tmp_path, format):
    write(SMALL, tmp_path / "block", format)
    with pytest.raises(FormatError, match="contains a cardinality; omit k, groups and free"):
        read(tmp_path / "block", format, k=1)


@pytest.mark.parametrize("format", TEXTS)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, format):
    path = tmp_path / "block"
    write(SMALL, path, format)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("problems.files.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write(CardinalityQUBO(np.eye(2), 1), path, format)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["block"]


def test_a_coupling_that_overflows_is_not_written(tmp_path):
    big = np.finfo(float).max
    problem = CardinalityQUBO([[0.0, big], [big, 0.0]], 1)
    for format in TEXTS:
        with pytest.raises(FormatError, match="scale the problem down"):
            write(problem, tmp_path / "block", format)
    problem.save(tmp_path / "block")


def test_sizes_are_read_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("problems.formats.terms.FREE_DENSE", 40)
    path = tmp_path / "sparse.ubqp"
    path.write_text("50 1\n1 50 1.0\n")
    with pytest.raises(FormatError, match=r"50 variables .* at most 40 .* pass max_n=50"):
        read(path, k=1)
    assert read(path, k=1, max_n=50).n == 50
    # One entry in 64 is enough.
    path.write_text("50 40\n" + "".join(f"1 {j} 1.0\n" for j in range(2, 42)))
    assert read(path, k=1).n == 50
    for module in (mps, qplib):
        module.write(SMALL, path)
        with pytest.raises(FormatError, match="at most 2 variables"):
            module.read(path, max_n=2)


def test_importing_the_formats_loads_no_backend():
    code = (
        "import sys, problems.formats, problems.presolve, problems.formats.bqm, "
        "problems.formats.quadratic_program; "
        "print([m for m in ('dimod', 'qiskit', 'scipy', 'docplex', 'solvers', 'icbs') "
        "if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
