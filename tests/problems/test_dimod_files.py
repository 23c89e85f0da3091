"""dimod's BQM and CQM files: files of dimod are read correctly, and damage is refused."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import dimod
import numpy as np
import pytest
from hostile import refuse
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_cases import all_states

from problems import FormatError
from problems.formats import read, write
from problems.formats.binary import ByteReader

few = settings(max_examples=40)

LABELS = {
    "numbers": lambda n: list(range(n)),
    "other numbers": lambda n: [5 * i + 3 for i in range(n)][::-1],
    "numbered strings": lambda n: [f"v{i}" for i in range(n)],
    "strings": lambda n: ["b", "a", "zé", "q r", "x\n", ""][:n],
    "tuples": lambda n: [(i, "a", i / 2) for i in range(n)],
    "mixed": lambda n: ["x", 1, ("x",), 2.5, "1", -1][:n],
}


@st.composite
def models(draw, vartypes=("BINARY", "SPIN")):
    """Draw a BQM of up to five variables with any labels."""
    n = draw(st.integers(0, 5))
    names = LABELS[draw(st.sampled_from(list(LABELS)))](n)
    value = st.integers(-40, 40).map(lambda v: v / 8)
    pairs = [(names[i], names[j]) for i in range(n) for j in range(i)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    dtype = draw(st.sampled_from([np.float32, np.float64, object]))
    linear, products = {name: draw(value) for name in names}, {pair: draw(value) for pair in chosen}
    vartype = draw(st.sampled_from(vartypes))
    return dimod.BinaryQuadraticModel(linear, products, draw(value), vartype, dtype=dtype)


def names_of(problem):
    return list(range(problem.n)) if problem.labels is None else list(problem.labels)


def energies(model, names, states):
    """Energies by dimod, which has none without variables."""
    if not names:
        return np.full(len(states), float(model.offset))
    spins = getattr(model, "vartype", dimod.BINARY) is dimod.SPIN
    return model.energies((2 * states.astype(int) - 1 if spins else states, names))


def packed(model, form, version=2):
    if form == "json":
        return json.dumps(model.to_serializable()).encode()
    return (model.to_file(version=version) if form == "bqm" else model.to_file()).read()


def unpacked(path, form):
    if form == "json":
        return dimod.BinaryQuadraticModel.from_serializable(json.loads(path.read_text()))
    return dimod.BinaryQuadraticModel.from_file(path.read_bytes())


@pytest.mark.parametrize(("form", "version"), [("bqm", 1), ("bqm", 2), ("json", 0)])
@few
@given(model=models())
def test_bqm_of_dimod(tmp_path_factory, form, version, model):
    path = tmp_path_factory.getbasetemp() / f"model.{form}"
    path.write_bytes(packed(model, form, version))
    problem = read(path, k=0)
    names, states = names_of(problem), all_states(len(model.variables))
    assert set(names) == set(model.variables)
    expected = energies(model, names, states)
    np.testing.assert_array_equal(problem.energy(states), expected)  # all are eighths
    write(problem, path)
    again = unpacked(path, form)
    assert set(again.variables) == set(names)
    np.testing.assert_array_equal(energies(again, names, states), expected)
    assert read(path, k=0).labels == problem.labels
    lifted = read(path, free=True)
    np.testing.assert_array_equal(lifted.energy(np.hstack([states, 1 - states])), expected)


@pytest.mark.parametrize("compress", [True, False])
@few
@given(model=models(("BINARY",)), groups=st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_cqm_of_dimod(tmp_path_factory, compress, model, groups):
    path = tmp_path_factory.getbasetemp() / "model.cqm"
    cqm = dimod.ConstrainedQuadraticModel()
    cqm.set_objective(model)
    for g in set(groups[: len(model.variables)]):
        members = [v for v, own in zip(model.variables, groups, strict=False) if own == g]
        # 3·Σ x_i - 6 == 3·k - 6
        row = [*((v, 3) for v in members), (-6,)]
        cqm.add_constraint(row, "==", 3 * (len(members) // 2) - 6, label=(g, "row"))
    path.write_bytes(cqm.to_file(compress=compress).read())
    for _ in range(2):
        problem = read(path)
        names, states = names_of(problem), all_states(problem.n)
        np.testing.assert_array_equal(
            problem.energy(states), energies(cqm.objective, names, states)
        )
        samples = [dict(zip(names, row, strict=True)) for row in states.tolist()]
        feasible = [cqm.check_feasible(sample) for sample in samples]
        np.testing.assert_array_equal(problem.is_feasible(states), feasible)
        write(problem, path)
        cqm = dimod.ConstrainedQuadraticModel.from_file(path.read_bytes())


def test_a_cqm_without_constraints_is_free(tmp_path):
    model = dimod.BinaryQuadraticModel({"a": 1.0, "b": 2.0}, {"ab": -4.0}, 0.5, "BINARY")
    cqm = dimod.ConstrainedQuadraticModel.from_bqm(model)
    (tmp_path / "free.cqm").write_bytes(cqm.to_file().read())
    with pytest.raises(FormatError, match="has no cardinality; pass k"):
        read(tmp_path / "free.cqm")
    lifted = read(tmp_path / "free.cqm", free=True)
    assert lifted.labels == ("a", "b", ("not", "a"), ("not", "b"))
    write(lifted, tmp_path / "again.cqm", free=True)
    again = dimod.ConstrainedQuadraticModel.from_file((tmp_path / "again.cqm").read_bytes())
    assert not again.constraints
    assert again.objective.is_equal(cqm.objective)


def test_integers_of_0_and_1_are_binaries(tmp_path):
    x, y = (dimod.Integer(name, upper_bound=1) for name in "xy")
    cqm = dimod.ConstrainedQuadraticModel()
    cqm.set_objective(x * x + 3 * x * y)
    cqm.add_constraint(x + y == 1)
    (tmp_path / "integers.cqm").write_bytes(cqm.to_file().read())
    problem = read(tmp_path / "integers.cqm")
    assert problem.energy([[0, 0], [1, 0], [0, 1], [1, 1]]).tolist() == [0, 1, 0, 4]


# -- refusals ------------------------------------------------------------------------------


def small():
    return dimod.BinaryQuadraticModel({"a": 1.0, "b": 2.0}, {"ab": -4.0}, 0.5, "BINARY")


def bqm_with(**changed):
    """Return a BQM file with another header before the same bytes."""
    content = packed(small(), "bqm")
    (length,) = struct.unpack("<I", content[10:14])
    header = json.dumps(json.loads(content[14 : 14 + length]) | changed).encode()
    return content[:10] + struct.pack("<I", len(header)) + header + content[14 + length :]


def bqm_of(linear, neighbours, labels=b""):
    """Return a BQM file of two variables with given records."""
    content = bqm_with(variables=bool(labels))
    start = 14 + struct.unpack("<I", content[10:14])[0]
    body = struct.pack("<d", 0.0) + b"".join(struct.pack("<id", *pair) for pair in linear)
    body += b"".join(struct.pack("<id", *pair) for pair in neighbours)
    section = b"VARS" + struct.pack("<I", len(labels)) + labels if labels else b""
    return content[:start] + body + section


PAIR = [(0, 1.0), (1, 1.0)], [(1, -4.0), (0, -4.0)]

BQM = {
    "empty": (b"", "does not begin with 'DIMODBQM'"),
    "a QM": (dimod.QuadraticModel().to_file().read(), "does not begin with 'DIMODBQM'"),
    "a later version": (b"DIMODBQM\x03\x00" + bytes(4), "header of .* is not JSON"),
    "version 9": (bqm_with()[:8] + b"\x09" + bqm_with()[9:], "version 9.0"),
    "a header without end": (b"DIMODBQM\x02\x00\xff\xff\xff\xff", "claims 4294967295 bytes"),
    "a deep header": (
        b"DIMODBQM\x02\x00" + struct.pack("<I", 10**5) + b"[" * 10**5,
        "header of .* is not JSON",
    ),
    "a billion variables": (bqm_with(shape=[10**9, 1]), "claims 12000000000 bytes"),
    "a billion products": (bqm_with(shape=[2, 10**9]), "claims 24000000000 bytes"),
    "variables beyond int64": (bqm_with(shape=[10**30, 1]), r"expected \[n, m\]"),
    "negative variables": (bqm_with(shape=[-1, 1]), r"claims the shape \[-1, 1\]"),
    "objects": (bqm_with(dtype="object"), "has the dtype 'object'; supported: float32, float64"),
    "dates as indices": (bqm_with(itype="M8[s]"), r"has the itype 'M8\[s\]'"),
    "another vartype": (bqm_with(vartype="INTEGER"), "has variables of type 'INTEGER'"),
    "an index beyond n": (bqm_of(PAIR[0], [(7, -4.0), (0, -4.0)]), "invalid index of a neighbour"),
    "a negative index": (bqm_of(PAIR[0], [(-1, -4.0), (0, -4.0)]), "invalid index of a neighbour"),
    "a product with itself": (
        bqm_of(PAIR[0], [(0, -4.0), (0, -4.0)]),
        "invalid index of a neighbour",
    ),
    "two values of a product": (
        bqm_of(PAIR[0], [(1, -4.0), (0, -3.0)]),
        "entries of a product differ",
    ),
    "lists that overlap": (bqm_of([(0, 1.0), (-5, 1.0)], PAIR[1]), "overlap or leave gaps"),
    "lists beyond the end": (bqm_of([(0, 1.0), (9, 1.0)], PAIR[1]), "overlap or leave gaps"),
    "NaN": (bqm_of([(0, float("nan")), (1, 1.0)], PAIR[1]), "must be finite"),
    "a product of infinity": (bqm_of(PAIR[0], [(1, np.inf), (0, np.inf)]), "must be finite"),
    "too few labels": (bqm_of(*PAIR, b'["a"]'), "there are 1 labels for 2 variables"),
    "a label twice": (bqm_of(*PAIR, b'["a", "a"]'), "duplicate label 'a'"),
    "an object as a label": (bqm_of(*PAIR, b'["a", {}]'), "is a dict"),
    "a label that is not a number": (
        bqm_of(*PAIR, b"[0, NaN]"),
        "names are strings, finite numbers",
    ),
    "labels that are not a list": (bqm_of(*PAIR, b'"ab"'), "expected a list of names, found a str"),
    "deep labels": (bqm_of(*PAIR, b"[" * 10**5), "nested too deep"),
    "labels of 40 lists": (bqm_of(*PAIR, b"[" * 40 + b"]" * 40), "nested too deep"),
    "labels without end": (bqm_of(*PAIR) + b"VARS", "k is 5"),
}


@pytest.mark.parametrize("case", BQM)
@pytest.mark.filterwarnings("error")
def test_bqm_files_that_are_refused(tmp_path, case):
    content, match = BQM[case]
    refuse(tmp_path, content, "bqm", match, k=5 if case == "labels without end" else 1)


def json_with(**changed):
    return json.dumps(small().to_serializable() | changed)


JSON = {
    "empty": ("", "is not JSON"),
    "deep": ("[" * 10**5, "is not JSON"),
    "a list": ("[]", "is not a BQM in JSON"),
    "a solution": ('{"x": [0, 1]}', "is not a BQM in JSON"),
    "bytes": (json_with(use_bytes=True), "has use_bytes"),
    "words": (json_with(linear_biases=["1", "2"]), "'linear_biases' is not a list of numbers"),
    "truths": (json_with(linear_biases=[True, 2]), "'linear_biases' is not a list of numbers"),
    "lists": (json_with(linear_biases=[[1], 2]), "'linear_biases' is not a list of numbers"),
    "nothing": (json_with(quadratic_head=None), "'quadratic_head' is not a list of numbers"),
    "integers beyond float64": (json_with(offset=10**400), "beyond float64"),
    "NaN": (json_with(offset=float("nan")), "it must be finite"),
    "an index beyond n": (json_with(quadratic_head=[2]), "outside 0 … 1"),
    "a negative index": (json_with(quadratic_head=[-1]), "outside 0 … 1"),
    "a fraction": (json_with(quadratic_head=[0.5]), "'quadratic_head' is not a list of numbers"),
    "a product with itself": (
        json_with(quadratic_head=[0], quadratic_tail=[0]),
        "lists of products are inconsistent",
    ),
    "lists of other lengths": (
        json_with(quadratic_biases=[1, 2]),
        "lists of products are inconsistent",
    ),
    "no labels": (json_with(variable_labels=None), "has no list of labels"),
    "too many labels": (json_with(variable_labels=["a", "b", "c"]), "3 labels for 2 variables"),
    "another vartype": (json_with(variable_type=["SPIN"]), "has variables of type"),
    "many variables": (
        json_with(linear_biases=[0] * 5000, variable_labels=list(range(5000))),
        "claims 5000 variables and lists 1 couplings",
    ),
}


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_refused(tmp_path, case):
    content, match = JSON[case]
    refuse(tmp_path, content, "json", match, k=1)


def cqm_with(header=None, **changed):
    """Return a CQM file with some entries replaced (None: omitted)."""
    cqm = dimod.ConstrainedQuadraticModel()
    cqm.set_objective(small())
    cqm.add_constraint([("a", 1), ("b", 1)], "==", 1, label="c")
    content = cqm.to_file().read()
    (length,) = struct.unpack("<I", content[10:14])
    told = json.dumps(json.loads(content[14 : 14 + length]) | (header or {})).encode()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()} | {
            name.replace("__", '/"c"/'): value for name, value in changed.items()
        }
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in entries.items():
            if value is not None:
                archive.writestr(name, value)
    return content[:10] + struct.pack("<I", len(told)) + told + into.getvalue()


def expression(magic, body):
    """Return the small model's objective with one section replaced."""
    with zipfile.ZipFile(io.BytesIO(cqm_with())) as archive:
        whole = archive.read("objective")
    at = whole.index(magic)
    start = at + (12 if magic == b"QUAD" else 8)
    return whole[:start] + body + whole[start + len(body) :]


def kinds(kind, low, high):
    return b"VTYP" + struct.pack("<I", 34) + 2 * struct.pack("<bdd", kind, low, high)


CQM = {
    "empty": (b"", "does not begin with 'DIMODCQM'"),
    "a header alone": (cqm_with()[:100], "is truncated|not a readable CQM"),
    "an older version": (cqm_with()[:8] + b"\x01\x03" + cqm_with()[10:], "version 1.3.*save it"),
    "a billion variables": (cqm_with({"num_variables": 10**9}), "claims 17000000000 bytes"),
    "variables of words": (cqm_with({"num_variables": "2"}), "claims '2' variables"),
    "other constraints": (cqm_with({"num_constraints": 2}), "another number of constraints"),
    "no objective": (cqm_with(objective=None), "has no entry 'objective'"),
    "no variables": (cqm_with(varinfo=None), "has no entry 'varinfo'"),
    "an unknown entry": (cqm_with(other=b""), "the unknown entry 'other'"),
    "no sense": (cqm_with(constraints__sense=None), "lacks its lhs, rhs or sense"),
    "an inequality": (cqm_with(constraints__sense=b"<="), "is not a hard linear equality"),
    "a soft constraint": (cqm_with(constraints__weight=b"\0" * 8), "not a hard linear equality"),
    "a quadratic constraint": (
        cqm_with(constraints__lhs=expression(b"OFFS", b"")),
        "not a hard linear equality",
    ),
    "a fraction": (cqm_with(constraints__rhs=struct.pack("<d", 0.5)), "requires a count of 0.5"),
    "half a number": (cqm_with(constraints__rhs=b"\0\0"), "claims 8 bytes at 0, where 2"),
    "spins": (cqm_with(varinfo=kinds(1, -1, 1)), "variable 'a' is SPIN"),
    "continuous": (cqm_with(varinfo=kinds(3, 0, 1)), "variable 'a' is REAL"),
    "another kind": (cqm_with(varinfo=kinds(9, 0, 1)), "variable 'a' is of kind 9"),
    "wide bounds": (cqm_with(varinfo=kinds(2, 0, 5)), r"'a' is INTEGER in \[0, 5\]"),
    "a fixed variable": (cqm_with(varinfo=kinds(0, 1, 1)), r"'a' is BINARY in \[1, 1\]"),
    "labels that are not a list": (
        cqm_with(**{"variable_labels.json": b"{}"}),
        "expected a list of names, found a dict",
    ),
    "an object as a label": (
        cqm_with(**{"variable_labels.json": b"[{}, 1]"}),
        "distinct labels",
    ),
    "a variable that is not there": (
        cqm_with(objective=expression(b"INDX", struct.pack("<i", 5))),
        "names an unknown variable",
    ),
    "a variable twice": (
        cqm_with(objective=expression(b"INDX", struct.pack("<ii", 1, 1))),
        "names an unknown variable",
    ),
    "a product that is not there": (
        cqm_with(objective=expression(b"QUAD", struct.pack("<i", -1))),
        "names an unknown variable",
    ),
}


@pytest.mark.parametrize("case", CQM)
def test_cqm_files_that_are_refused(tmp_path, case):
    content, match = CQM[case]
    refuse(tmp_path, content, "cqm", match)


def test_a_bomb_is_not_unpacked(tmp_path):
    """Zeros compress a thousandfold; the claimed size is refused."""
    into = io.BytesIO()
    with (
        zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("objective", "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    header = cqm_with()[: 14 + struct.unpack("<I", cqm_with()[10:14])[0]]
    refuse(tmp_path, header + into.getvalue(), "cqm", "would unpack to 300 MiB")


def test_contents_are_taken_from_the_front():
    content = ByteReader(b"\x01\x00\x02", "it")
    assert content.array("<u2", 1).tolist() == [1]
    with pytest.raises(FormatError, match="truncated or damaged: it claims 2 bytes at 2"):
        content.take(2)
    assert content.rest() == b"\x02"
