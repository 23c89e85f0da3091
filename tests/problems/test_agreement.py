"""Every format against independent readers: energies and feasibility of all states.

A round trip can't show that a format is understood; another library, a plain evaluation of
the format's own definition, or a published point can.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import dimod
import numpy as np
import pytest
from dimod.serialization import coo as dimod_coo
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_cases import all_states, any_problems, reading_arguments, tolerance
from reference_readers import READERS, by_highs, by_the_appendix

from problems import CardinalityQUBO
from problems.formats import FORMATS, read, write

few = settings(max_examples=40)

#: One group and several, from no variable to five.
problems = any_problems(max_n=5, min_n=0)

#: Edge cases besides those that hypothesis draws.
EDGES = {
    "no variable": CardinalityQUBO(np.zeros((0, 0)), 0, offset=0.25),
    "no variable in two groups": CardinalityQUBO(
        np.zeros((0, 0)), [0, 0], groups=np.zeros(0, int), offset=-1.0
    ),
    "one variable, none": CardinalityQUBO([[3.0]], 0),
    "one variable, taken": CardinalityQUBO([[-3.0]], 1, offset=1.5),
    "none of three": CardinalityQUBO(np.ones((3, 3)), 0),
    "all of three": CardinalityQUBO(np.ones((3, 3)), 3),
    "all and none": CardinalityQUBO(np.eye(3), [2, 0], groups=[0, 1, 0]),
    "zero": CardinalityQUBO(np.zeros((2, 2)), 1),
    "small and large": CardinalityQUBO([[1e-7, 2e5], [2e5, -1e-7]], 1, offset=1e-9),
}


def assert_agreement(problem, name):
    format, evaluate = READERS[name]
    states = all_states(problem.n)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"problem.{format}"
        write(problem, path)
        energies, feasible = evaluate(path, states)
        again = read(path, **reading_arguments(problem, format))
    commented = format in ("coo", "qubo", "ubqp", "mqlib")
    offset = problem.offset if commented else 0.0  # the file stores it in a comment
    np.testing.assert_allclose(
        np.asarray(energies) + offset, problem.energy(states), rtol=0, atol=1e3 * tolerance(problem)
    )
    if feasible is not None:
        np.testing.assert_array_equal(feasible, problem.is_feasible(states))
    np.testing.assert_array_equal(again.is_feasible(states), problem.is_feasible(states))
    np.testing.assert_allclose(
        again.energy(states), problem.energy(states), atol=tolerance(problem)
    )


@pytest.mark.parametrize("name", list(READERS))
@few
@given(problem=problems)
def test_files_are_read_by_other_libraries(name, problem):
    assert_agreement(problem, name)


@pytest.mark.parametrize("name", list(READERS))
@pytest.mark.parametrize("edge", list(EDGES))
def test_edges(name, edge):
    assert_agreement(EDGES[edge], name)


def test_edge_cases_round_trip_in_every_format(tmp_path):
    for format in FORMATS:
        for problem in EDGES.values():
            write(problem, tmp_path / "edge", format)
            again = read(tmp_path / "edge", format, **reading_arguments(problem, format))
            assert (again.n, again.k) == (problem.n, problem.k)
            states = all_states(problem.n)
            np.testing.assert_allclose(again.energy(states), problem.energy(states), rtol=1e-15)


# -- files of other programs ---------------------------------------------------------------


@few
@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.integers(-20, 20), min_size=n, max_size=n)))
def test_spins_of_dimod_are_turned_into_binaries(fields):
    """``# vartype=SPIN``, by dimod's own writer and its own reader."""
    n, rng = len(fields), np.random.default_rng(abs(sum(fields)))
    couplings = {(i, j): float(rng.integers(-9, 9)) for i in range(n) for j in range(i)}
    spins = dimod.BQM({i: v / 4 or 1.0 for i, v in enumerate(fields)}, couplings, "SPIN")
    text = dimod_coo.dumps(spins, vartype_header=True)
    assert text.startswith("# vartype=SPIN")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spins.coo"
        path.write_text(text)
        problem = read(path, k=1)
    states = all_states(n)
    expected = dimod_coo.loads(text).energies((2 * states.astype(int) - 1, range(n)))
    np.testing.assert_allclose(problem.energy(states), expected, atol=1e-9)


@pytest.mark.parametrize("header", ["# vartype=BINARY\n", "# a vartype: BINARY\n", ""])
def test_binaries_of_dimod_stay(tmp_path, header):
    path = tmp_path / "binary.coo"
    path.write_text(f"{header}0 0 -1.000000\n0 1 1.000000\n1 2 -4.500000\n")  # its own example
    states = all_states(3)
    expected = dimod_coo.loads(path.read_text(), vartype=None if header else "BINARY")
    np.testing.assert_allclose(
        read(path, k=1).energy(states), expected.energies((states, range(3)))
    )


def test_a_header_below_the_data_counts_as_it_does_for_dimod(tmp_path):
    path = tmp_path / "late.coo"
    path.write_text("0 0 1.0\n0 1 2.0\n# vartype=SPIN\n")
    states = all_states(2)
    expected = dimod_coo.loads(path.read_text()).energies((2 * states.astype(int) - 1, range(2)))
    np.testing.assert_allclose(read(path, k=1).energy(states), expected)


#: Products of x0², x0·x1 and x1·x2 in the quadratic sections that HiGHS reads too.
SECTIONS = {
    "QUADOBJ": "QUADOBJ\n x0 x0 3\n x0 x1 5\n x1 x2 -7\n",
    "the other triangle": "QUADOBJ\n x0 x0 3\n x1 x0 5\n x2 x1 -7\n",
    "QSECTION": "QSECTION cost\n x0 x0 3\n x0 x1 5\n x1 x2 -7\n",
    "QMATRIX": "QMATRIX\n x0 x0 3\n x0 x1 5\n x1 x0 5\n x1 x2 -7\n x2 x1 -7\n",
    "none": "",
}
MPS = """NAME three
{sense}ROWS
 N cost
 N unused
 E count
COLUMNS
 M1 'MARKER' 'INTORG'
 x0 cost 1 count 2
 x1 unused 4
 x1 count 2
 M2 'MARKER' 'INTEND'
 x2 cost -3 count 2
RHS
 RHS count 4 cost 2.5
BOUNDS
{bounds} BV BND x2
{section}ENDATA
"""


@pytest.mark.parametrize("section", list(SECTIONS))
@pytest.mark.parametrize("sense", ["", "OBJSENSE\n MAX\n", "OBJSENSE\n MINIMIZE\n"])
@pytest.mark.parametrize("bounds", ["", " UP BND x0 1\n", " LO BND x1 0\n UP BND x1 1\n"])
def test_mps_files_of_other_programs(tmp_path, section, sense, bounds):
    path = tmp_path / "three.mps"
    path.write_text(MPS.format(sense=sense, bounds=bounds, section=SECTIONS[section]))
    problem, states = read(path), all_states(3)
    energies, feasible = by_highs(path, states)
    np.testing.assert_array_equal(problem.is_feasible(states), feasible)
    if section != "the other triangle":  # read by later versions of HiGHS
        np.testing.assert_allclose(problem.energy(states), energies)
    # And by hand: x0 - 3 x2 - 2.5 + ½(3 x0² + 2·5 x0 x1 - 2·7 x1 x2), with two of the three.
    by_hand = 1 - 3 - 2.5 + (1.5 if section != "none" else 0)
    assert problem.energy([1, 0, 1]) == (-by_hand if "MAX" in sense else by_hand)
    by_hand += 0 + (5 - 7) * (section != "none")  # x1 joins
    assert problem.energy([1, 1, 1]) == (-by_hand if "MAX" in sense else by_hand)
    assert problem.k == 2


LP = """Maximize
 cost: 2 x0 + 3.5 x1 - x2 + [ - 4 x0 * x1 + 6 x1 ^ 2 - 2 x2 * x1 ] / 2 + 7
Subject To
 - 2 x0 - 2 x1 - 2 x2 = -2
Bounds
 0 <= x0 <= 1
 x1 <= 1
 0 <= x2
Binaries
 x0 x2
Generals
 x1
End
"""


def test_lp_files_of_other_programs(tmp_path):
    path = tmp_path / "three.lp"
    path.write_text(LP)
    problem, states = read(path), all_states(3)
    energies, feasible = by_highs(path, states)
    np.testing.assert_allclose(problem.energy(states), energies)
    np.testing.assert_array_equal(problem.is_feasible(states), feasible)
    assert problem.energy([0, 1, 0]) == -(3.5 + 3 + 7)
    assert problem.energy([1, 1, 1]) == -(2 + 3.5 - 1 - 2 + 3 - 1 + 7)


# -- QPLIB: published points -------------------------------------------------------------

#: The text form of the library's own files, infinity included.
MINI = """QPLIB_mini
QBL
minimize
3 # number of variables
1 # number of constraints
3 # number of quadratic terms in objective
1 1 2.0
2 1 6.0
3 2 -4.0
0.0 # default value for linear coefficients in objective
1 # number of non-default linear coefficients in objective
3 5.0
0.0 # objective constant
3 # number of linear terms in all constraints
1 1 1.0
1 2 1.0
1 3 1.0
1.79769313486232E+308 # value for infinity
2.0 # default left-hand-side value
0 # number of non-default left-hand-sides
2.0 # default right-hand-side value
0 # number of non-default right-hand-sides
0.0 # default variable primal value in starting point
0 # number of non-default variable primal values in starting point
0.0 # default constraint dual value in starting point
0 # number of non-default constraint dual values in starting point
0.0 # default variable bound dual value in starting point
0 # number of non-default variable bound dual values in starting point
0 # number of non-default variable names
0 # number of non-default constraint names
"""


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
def test_qplib_at_its_points(tmp_path, sense):
    path = tmp_path / "mini.qplib"
    path.write_text(MINI.replace("minimize", sense))
    problem = read(path)
    assert problem.k == 2
    sign = 1 if sense == "minimize" else -1
    points = [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    np.testing.assert_array_equal(sign * problem.energy(points), [4, 3, 6])
    states = all_states(3)
    np.testing.assert_array_equal(by_the_appendix(path, states)[0], problem.energy(states))


def test_qplib_agrees_with_the_same_problem_in_lp(tmp_path):
    """The library's LP files have the same numbers within ``[ … ] / 2``."""
    (tmp_path / "mini.qplib").write_text(MINI)
    (tmp_path / "mini.lp").write_text(
        "Minimize\n obj: 5 x3 + [ 2 x1 ^ 2 + 6 x1 * x2 - 4 x2 * x3 ] / 2\n"
        "Subject To\n x1 + x2 + x3 = 2\nBinary\n x1 x2 x3\nEnd\n"
    )
    first, second = read(tmp_path / "mini.qplib"), read(tmp_path / "mini.lp")
    np.testing.assert_array_equal(first.Q, second.Q)
