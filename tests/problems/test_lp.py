"""Grammar of LP texts: values that are read, and texts that are refused."""

from __future__ import annotations

import time

import numpy as np
import pytest

from problems import FormatError
from problems.formats import lp


def text(
    objective="1 x0 + 2 x1",
    rows=" c: x0 + x1 = 1",
    bounds="",
    binary="x0 x1",
    more="",
    head="Minimize",
):
    """Make a text from sections, without the empty ones."""
    parts = [f"{head}\n obj: {objective}", f"Subject To\n{rows}"]
    parts += [f"Bounds\n {bounds}"] if bounds else []
    parts += [f"Binary\n {binary}"] if binary else []
    return "\n".join([*parts, *([more] if more else []), "End\n"])


def parse(tmp_path, content, **options):
    path = tmp_path / "problem.lp"
    path.write_text(content)
    return lp.read(path, **options)


def coefficients(problem):
    """Return offset, linear terms and the whole coefficient of x0·x1."""
    return [problem.offset, *problem.diagonal.tolist(), 2 * float(problem.Q[0, 1])]


#: Offset, coefficients of x0 and x1, and that of x0·x1.
READ = {
    "x0 + 2 x1": [0, 1, 2, 0],
    "+x0+2x1": [0, 1, 2, 0],
    "2 x1 - x0": [0, -1, 2, 0],
    "x0 + -2 x1": [0, 1, -2, 0],
    "x0 - -2 x1": [0, 1, 2, 0],
    "x0 - - - x1": [0, 1, -1, 0],
    "1.5e1 x0 + .5 x1": [0, 15, 0.5, 0],
    "2.E-1 x0 + 5. x1": [0, 0.2, 5, 0],
    "x0 + x0 + x1 + x0": [0, 3, 1, 0],
    "x0 + x1 + 7": [7, 1, 1, 0],
    "- 7 + x0 + x1 + 3": [-4, 1, 1, 0],
    "0 x0 + x1": [0, 0, 1, 0],
    "-0 x0 + x1": [0, 0, 1, 0],
    "0": [0, 0, 0, 0],
    "": [0, 0, 0, 0],
    "x0 + [ 4 x0 * x1 + 6 x0 ^ 2 ] / 2": [0, 1 + 3, 0, 2],
    "x0+[4 x0*x1+6 x0^2]/2": [0, 1 + 3, 0, 2],
    "[ x1 * x0 ] / 2 + x0 - 1": [-1, 1, 0, 0.5],
    "x0 - [ 4 x0 * x1 - 2 x1 ^ 2 ] / 2": [0, 1, 1, -2],
    "[ 4 x0 * x1 ] / 2 + x1 + [ 2 x1 * x0 ]/2.0": [0, 0, 1, 3],
    "[ 4 x0 * x0 ] / 2": [0, 2, 0, 0],
    "x0 +\n [ 4 x0 *\n x1 +\n 6 x0 ^2\n ] /\n 2": [0, 4, 0, 2],
    "[ ] / 2 + x0": [0, 1, 0, 0],
    "x0 \\ + x1, left out\n + 3 x1 \\ [": [0, 1, 3, 0],
}


@pytest.mark.parametrize("objective", list(READ))
def test_objectives(tmp_path, objective):
    problem = parse(tmp_path, text(objective))
    np.testing.assert_allclose(coefficients(problem), READ[objective], rtol=1e-15)
    turned = parse(tmp_path, text(objective, head="MAXIMIZE"))
    np.testing.assert_allclose(coefficients(turned), -np.array(READ[objective]), rtol=1e-15)


@pytest.mark.parametrize("head", ["minimize", "Minimum", "MIN", "maximize", "maximum", "Max"])
@pytest.mark.parametrize("rows", ["Subject To", "subject  to", "SUCH THAT", "st", "S.T.", "st."])
@pytest.mark.parametrize("binary", ["Binary", "binaries", "BIN"])
def test_heads_in_any_case(tmp_path, head, rows, binary):
    content = text(head=head).replace("Subject To", rows).replace("Binary", binary)
    problem = parse(tmp_path, content.replace("End", "END"))
    sign = -1 if "max" in head.lower() else 1
    assert problem.diagonal.tolist() == [sign, 2 * sign]
    assert problem.k == 1


@pytest.mark.parametrize("kind", ["General", "generals", "GEN", "Integer", "integers", "int"])
def test_integers_with_the_bound_one(tmp_path, kind):
    problem = parse(tmp_path, text(bounds="x0 <= 1\n 1 >= x1", binary="", more=f"{kind}\n x0 x1"))
    assert problem.k == 1
    with pytest.raises(FormatError, match="'x0' is an integer without the bound 1"):
        parse(tmp_path, text(bounds="x0 >= 0\n x1 <= 1", binary="", more=f"{kind}\n x0 x1"))


@pytest.mark.parametrize(
    "bound", ["0 <= x0 <= 1", "x0 <= 1", "x0 >= 0", "1 >= x0", "x0 =< 1", "-0 <= x0 < 1.0"]
)
def test_bounds_that_a_binary_has_anyway(tmp_path, bound):
    assert parse(tmp_path, text(bounds=bound)).k == 1
    assert parse(tmp_path, text(more=f"Bounds\n {bound}")).k == 1


@pytest.mark.parametrize(
    "bound",
    [
        "x0 = 1", "x0 = 0", "x0 >= 1", "x0 <= 0", "1 <= x0 <= 1", "0 <= x0 <= 0", "x0 <= 2",
        "x0 <= -1", "x0 <= 0.5", "-1 <= x0 <= 1", "x0 free", "-inf <= x0", "x0 >= -infinity",
        "x0 <= + inf", "1 <= x0", "0 >= x0", "x0 = 1e400",
    ],
)  # fmt: skip
@pytest.mark.parametrize("below", [False, True])
def test_bounds_that_no_binary_has(tmp_path, bound, below):
    """A fixed binary changes the feasible set; wider bounds are read differently by solvers."""
    content = text(more=f"Bounds\n {bound}") if below else text(bounds=bound)
    with pytest.raises(
        FormatError, match=r"line \d .*is not that of a binary.*substitute the value"
    ):
        parse(tmp_path, content)


@pytest.mark.parametrize(
    ("rows", "k"),
    [
        (" c: x0 + x1 = 1", 1),
        (" c :x0+x1==2", 2),
        (" x0 + x1 = 0", 0),
        (" c: - x0 - x1 = - 1", 1),
        (" c: 3 x0\n + 3 x1\n =\n 6", 2),
        (" c: 0.1 x0 + 0.1 x1 = 0.1000000000001", 1),
        (" c: 0.5 x0 + 0.5 x1 = .5", 1),
        (" c: x0 + x1 = 1e0", 1),
        (" c: x0 - x1 + 2 x1 = + 1 ", 1),
    ],
)
def test_rows(tmp_path, rows, k):
    assert parse(tmp_path, text(rows=rows)).k == k


def test_rows_of_several_groups(tmp_path):
    problem = parse(
        tmp_path, text("x0 + x3", " x0 + x2 = 1\n g: x1 + x3 = 2", binary="x3 x2 x1 x0")
    )
    assert problem.groups.tolist() == [0, 1, 0, 1]
    assert problem.cardinalities.tolist() == [1, 2]
    assert problem.diagonal.tolist() == [1, 0, 0, 1]


def test_names_in_files_of_other_programs(tmp_path):
    content = text("3 x[0,1] + 2 e1", " R#1: x[0,1] + e1 = 1", binary="e1\n x[0,1]")
    assert parse(tmp_path, content).diagonal.tolist() == [3, 2]
    content = text("3 x0 + 2 st", " bounds: x0 + st = 1", binary="x0 st")
    assert parse(tmp_path, content).diagonal.tolist() == [3, 2]
    with pytest.raises(FormatError, match="section 'st' is duplicate or out of order"):
        parse(tmp_path, text("3 x0 + 2 st", " st + x0 = 1", binary="x0 st"))


REFUSED = {
    "two numbers": (text("2 3 x0 + x1"), r"line 2 \('3 x0 \+ x1'\): no operator between"),
    "digits in groups": (text("1 000 x0 + x1"), "no operator"),
    "two variables": (text("x0 x1"), "no operator"),
    "no operator in a row": (text(rows=" c: 1 x0 1 x1 = 1"), r"line 4 \('1 x1 = 1'\): no operator"),
    "no operator in a bracket": (text("[ x0 * x1 x0 ^ 2 ] / 2"), "no operator between two prod"),
    "a bracket behind a term": (text("x0 [ x0 * x1 ] / 2"), "no operator"),
    "a factor of a bracket": (text("3 [ x0 * x1 ] / 2"), "no operator"),
    "a star": (text("2 * x0 + x1"), "can't be parsed from here"),
    "a product outside": (text("x0 * x1"), "can't be parsed from here"),
    "a square outside": (text("x0 ^ 2 + x1"), "can't be parsed from here"),
    "an operator left over": (text("x0 + "), "an operator without a term"),
    "a relation in the objective": (text("x0 + x1 <= 3"), "can't be parsed from here"),
    "an exponent or a name": (text("3e1x0 + x1"), "'3e1x0' may contain an exponent"),
    "another": (text("2e + x0", " c: x0 + e = 1", binary="e x0"), "'2e' may contain an exponent"),
    "no half": (text("[ 4 x0 * x1 ]"), "expected a bracket like"),
    "a third": (text("[ 4 x0 * x1 ] / 3"), "expected a bracket like"),
    "22": (text("[ 4 x0 * x1 ] / 22"), "expected a bracket like"),
    "a cube": (text("[ 4 x0 ^ 3 ] / 2"), "expected a bracket like"),
    "three variables": (text("[ 4 x0 * x1 * x0 ] / 2"), "expected a bracket like|no operator"),
    "a linear term inside": (text("[ 4 x0 + x0 * x1 ] / 2"), "expected a bracket like"),
    "a bracket in a row": (text(rows=" c: x0 + [ x0 * x1 ] = 1"), "rows must be linear"),
    "a constant on the left": (text(rows=" c: x0 + x1 - 1 = 0"), "rows must be linear"),
    "a number on the left": (text(rows=" c: 1 = x0 + x1"), "rows must be linear"),
    "a range": (text(rows=" c: 1 <= x0 + x1 <= 1"), "rows must be linear"),
    "a variable on the right": (text(rows=" c: x0 = 1 - x1"), "one number on the right"),
    "nothing on the right": (text(rows=" c: x0 + x1 ="), "one number on the right"),
    "a sum on the right": (text(rows=" c: x0 + x1 = 1 + 1"), "one number on the right"),
    "two rows on a line": (text(rows=" c: x0 = 1 d: x1 = 1"), "one number on the right"),
    "an indicator": (text(rows=" c: x0 = 1 -> x1 = 0"), "one number on the right"),
    "infinity": (text(rows=" c: x0 + x1 = inf"), "one number on the right"),
    "no relation": (text(rows=" c: x0 + x1"), "this one differs from here"),
    "a row of nothing": (text(rows=" c: = 1"), "this one differs from here"),
    "at most": (text(rows=" c: x0 + x1 <= 1"), "the row is an inequality"),
    "at least": (text(rows=" c: x0 + x1 => 1"), "the row is an inequality"),
    "less": (text(rows=" x0 + x1 < 1"), "the row is an inequality"),
    "a label twice": (text(rows=" c: x0 = 1\n c: x1 = 1"), "duplicate row name 'c'"),
    "a row twice": (text(rows=" c: x0 + x1 = 1\n d: x0 + x1 = 1"), "already in another"),
    "a second objective": (text("x0\n other: x1"), "no operator"),
    "a second sense": (text(more="Maximize\n x0"), "'Maximize' is duplicate or out of order"),
    "rows twice": (text(more="Subject To\n d: x0 = 1"), "'Subject To' is duplicate"),
    "several objectives": (
        text("Priority=1", head="Minimize multi-objectives"), "can't be read|no operator",
    ),
    "a sense with a typing error": (text(head="Maximise"), "starts without objective"),
    "something before": ("x0\n" + text(), "starts without objective"),
    "no end": (text().removesuffix("End\n"), "truncated"),
    "something behind": (text() + "x2\n", "text after the end"),
    "an unknown section": (text(more="Novelties\n x0"), "'Novelties' is not in any expression"),
    "a name with no use": (text(binary="x0 x1 x2"), "'x2' is not in any expression"),
    "a bound with no use": (text(bounds="x2 <= 1"), "'x2' is not in any expression"),
    "two bounds on a line": (text(bounds="x0 <= 1 x1 <= 1"), "on a line of its own"),
    "half a bound": (text(bounds="x0 <="), "expected a bound like"),
    "a count near 0": (text(rows=" c: 1e30 x0 + 1e30 x1 = 1"), "requires a count of 9.99"),
    "a count that rounds to 0": (
        text(rows=" c: 1e200 x0 + 1e200 x1 = 1e-200"), "requires a count of 0.0",
    ),
    "a count near 1": (text(rows=" c: x0 + x1 = 1.00001"), "requires a count of 1.00001"),
    "continuous": (text(binary="x0"), "'x1' is continuous; all must be binary"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_refusals(tmp_path, case):
    content, match = REFUSED[case]
    with pytest.raises(FormatError, match=match):
        parse(tmp_path, content)


@pytest.mark.parametrize(
    "section",
    [
        "SOS\n s1: S1:: x0:1 x1:2", "sos1\n s1: x0:1 x1:2", "SOS2\n s: x0:1", "semis\n x0",
        "Semi-Continuous\n x0", "Lazy Constraints\n l: x0 + x1 <= 1", "User Cuts\n u: x0 <= 1",
        "General Constraints\n g: x0 = AND ( x1 )", "GenCons\n g: x0 = AND ( x1 )", "Gen Cons\n x",
        "PWLObj\n x0: (0, 0) (1, 2)", "Scenario\n x0",
    ],
)  # fmt: skip
def test_sections_that_are_not_read(tmp_path, section):
    head = section.partition("\n")[0]
    with pytest.raises(FormatError, match=rf"section '{head}' is not supported"):
        parse(tmp_path, text(more=section))


def test_sections_that_are_empty(tmp_path):
    """HiGHS writes the heads of all sections."""
    content = text(head="min", bounds="x0 <= 1\n x1 <= 1", more="gen\nsemi\n\nsos")
    assert parse(tmp_path, content.replace("Subject To", "st")).diagonal.tolist() == [1, 2]
    with pytest.raises(FormatError, match="section 'semi' is duplicate or out of order"):
        parse(tmp_path, text(more="semi\nsemi"))


def test_long_runs_fail_in_linear_time(tmp_path):
    """Backtracking quantifiers would need hours for these."""
    runs = [
        " ",
        "\n",
        "+ ",
        "1",
        "x",
        "x[",
        "[ ",
        "] ",
        "( ",
        "bin ",
        "\n bin",
        "1e",
        "x0 * ",
        "<= ",
    ]
    for run in runs:
        for content in (
            text(f"x0 + {run * 50_000} ? x1"),
            text(f"[ x0 * x1 {run * 50_000} ? x1 ] / 2"),
            text(rows=f" c: x0 + x1 {run * 50_000} ? 1"),
            text(bounds=f"0 {run * 50_000} <= ? x0"),
            text(binary=f"x0 {run * 50_000} ?"),
        ):
            began = time.process_time()
            with pytest.raises(FormatError) as caught:
                parse(tmp_path, content)
            assert time.process_time() - began < 2
            assert len(str(caught.value)) < 500
