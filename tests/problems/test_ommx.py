"""OMMX instances and artifacts, against OMMX's own evaluation and a file that it wrote."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_cases import SMALL, all_states, any_problems, assert_same_problem, tolerance

from problems import CardinalityQUBO, FormatError
from problems.formats import read, write
from problems.formats.ommx import decode, encode, from_instance, to_instance
from problems.formats.ommx_archive import INSTANCE
from problems.formats.ommx_schema import message_class

#: Written by OMMX 2.9.3 itself: see :func:`test_a_file_of_ommx`.
FILE = Path(__file__).parent / "data" / "made_by_ommx.ommx"


def parsed(problem=SMALL):
    """Return a problem's instance as a message that a test may change."""
    return message_class("Instance").FromString(encode(problem))


def read_back(message, **options):
    return decode(message.SerializeToString(), "it", **options)


def test_a_file_of_ommx():
    """Ids out of order, names and subscripts, a scaled row, a maximum."""
    problem = read(FILE)
    assert problem.labels == (("w", 3, 6), ("w", 5, 10), ("w", 7, 14), ("w", 12, 24), "bias")
    for state in all_states(5):
        x3, x5, x7, x12, x20 = map(float, state)
        value = 1.5 * x7 * x3 - 2 * x12 * x5 + 0.25 * x20 * x7 + x3 - 3 * x5 + 4 * x20 + 0.5
        assert problem.energy(state) == -value
        assert problem.is_feasible(state) == (x7 + x12 + x5 == 2 and 2 * x3 + 2 * x20 == 2)


@settings(max_examples=40)
@given(any_problems(max_n=6, min_n=0))
def test_bytes_come_back(problem):
    assert_same_problem(problem, decode(encode(problem), "it"))


@settings(max_examples=60)
@given(
    n=st.integers(1, 5),
    entries=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-9, 9).map(float)), max_size=12
    ),
    singles=st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9).map(float)), max_size=6),
    kind=st.sampled_from(["quadratic", "polynomial"]),
    sense=st.sampled_from([0, 1, 2]),
    ids=st.permutations([3, 0, 40, 7, 2**63]),
)
def test_any_order_of_terms_is_what_ommx_evaluates(n, entries, singles, kind, sense, ids):
    """Products given as (i, j), as (j, i), on the diagonal and repeatedly all add up."""
    ommx = pytest.importorskip("ommx.v1")
    message = message_class("Instance")(sense=sense)
    for i in ids[:n]:
        variable = message.decision_variables.add(id=i, kind=1 + i % 2)
        variable.bound.upper = 1.0
    entries = [(ids[i], ids[j], v) for i, j, v in entries if max(i, j) < n]
    singles = [(ids[i], v) for i, v in singles if i < n]
    if kind == "quadratic":
        quadratic = message.objective.quadratic
        for i, j, v in entries:
            quadratic.rows.append(i)
            quadratic.columns.append(j)
            quadratic.values.append(v)
        for i, v in singles:
            quadratic.linear.terms.add(id=i, coefficient=v)
        quadratic.linear.constant = 1.5
    else:
        for *term, v in [*entries, *singles]:
            message.objective.polynomial.terms.add(ids=term, coefficient=v)
        message.objective.polynomial.terms.add(coefficient=1.5)
    row = message.constraints.add(id=1, equality=1)
    for i in reversed(ids[:n]):  # each variable twice, with half its weight
        row.function.linear.terms.add(id=i, coefficient=-1.5)
        row.function.linear.terms.add(id=i, coefficient=-1.5)
    row.function.linear.constant = 3.0 * (n // 2)
    content = message.SerializeToString()
    problem, instance = decode(content, "it"), ommx.Instance.from_bytes(content)
    sign = -1.0 if sense == 2 else 1.0
    for state in all_states(n):
        answer = instance.evaluate(dict(zip(sorted(ids[:n]), map(float, state), strict=True)))
        assert problem.energy(state) == pytest.approx(sign * answer.objective, abs=1e-9)
        assert problem.is_feasible(state) == answer.feasible


@settings(max_examples=20)
@given(any_problems(max_n=5))
def test_instances_of_ommx(problem):
    """Both ways in memory, by OMMX's own evaluation of random states."""
    pytest.importorskip("ommx.v1")
    instance = to_instance(problem)
    assert_same_problem(problem, from_instance(instance))
    for state in all_states(problem.n):
        answer = instance.evaluate(dict(enumerate(map(float, state))))
        assert answer.objective == pytest.approx(problem.energy(state), abs=tolerance(problem))
        assert answer.feasible == problem.is_feasible(state)
    assert not to_instance(problem, free=True).constraints


def test_a_large_instance_keeps_every_bit():
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(300, 300))
    problem = CardinalityQUBO(Q + Q.T, [75, 75], groups=np.arange(300) // 150, offset=0.1)
    again = decode(encode(problem), "it")
    np.testing.assert_array_equal(again.Q, problem.Q)
    np.testing.assert_array_equal(again.groups, problem.groups)
    assert (again.offset, again.labels) == (0.1, None)


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (["a", "b c", "é"], True),
        ([("x", 0, 1), ("x", -5), "x"], True),
        ([("x", 0), ("x", 1), ("x", 2)], False),  # how variables without names are written
        ([1, 2, 3], False),
        (["a", "b", ("c", 1.5)], False),
        (["a", "b", ("c", 2**63)], False),
        (["a", "b", ("c",)], False),
        (["a", "b", "\ud800"], False),
    ],
)
def test_names(labels, kept):
    problem = CardinalityQUBO(SMALL.Q, [1, 1], groups=[0, 0, 1], labels=labels)
    assert decode(encode(problem), "it").labels == (tuple(labels) if kept else None)


def test_names_that_are_missing_or_equal_are_left_out():
    message = parsed()
    message.decision_variables[1].ClearField("name")
    assert read_back(message).labels is None
    message = parsed()
    for variable in message.decision_variables:
        variable.ClearField("subscripts")
    assert read_back(message).labels is None


# -- what is refused ---------------------------------------------------------------------


def change(field, value):
    return lambda message: setattr(message, field, value)


def change_variable(field, value):
    return lambda message: setattr(message.decision_variables[1], field, value)


REFUSED = {
    "another version": (change("format_version", 1), "later version of ommx.v1"),
    "an unknown sense": (change("sense", 3), "no objective, or no sense"),
    "no objective": (lambda m: m.ClearField("objective"), "no objective"),
    "an integer": (lambda m: m.decision_variables[0].bound.MergeFrom(
        message_class("Bound")(upper=2)), r"variable 0 is of kind 1 in \[0, 2\]"),
    "no bound": (lambda m: m.decision_variables[0].ClearField("bound"), r"in \[0, 0\]"),
    "a continuous variable": (change_variable("kind", 3), "variable 1 is of kind 3"),
    "a fixed variable": (change_variable("substituted_value", 0.0), "variable 1 is fixed"),
    "an id twice": (change_variable("id", 0), "id twice"),
    "an inequality": (
        lambda m: setattr(m.constraints[0], "equality", 2), "constraint 'cardinality' is an ineq"
    ),
    "weights": (
        lambda m: setattr(m.constraints[0].function.linear.terms[0], "coefficient", 2.0),
        "weighs all its variables alike",
    ),
    "a product in a row": (
        lambda m: m.constraints[0].function.polynomial.terms.add(ids=[0, 1], coefficient=1.0),
        "has products",
    ),
    "degree 3": (
        lambda m: m.objective.polynomial.terms.add(ids=[0, 1, 2], coefficient=1.0), "degree 3"
    ),
    "an expression": (lambda m: setattr(m.objective, "expression", b""), "is expression"),
    "no function": (lambda m: m.constraints[0].ClearField("function"), "is missing"),
    "an unknown variable": (lambda m: m.objective.quadratic.rows.__setitem__(0, 99), "uses var"),
    "ragged products": (lambda m: m.objective.quadratic.rows.append(1), "differ in number"),
    "NaN": (lambda m: m.objective.quadratic.values.__setitem__(0, float("nan")), "finite"),
    "a removed constraint": (lambda m: m.removed_constraints.append(b""), "were removed"),
    "a dependent variable": (
        lambda m: m.decision_variable_dependency.append(b""), "depend on others"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_problem_cannot_hold(what):
    spoil, message = REFUSED[what]
    instance = parsed()
    spoil(instance)
    with pytest.raises(FormatError, match=message):
        read_back(instance)


def test_an_unknown_field_is_not_passed_over():
    content = encode(SMALL)
    for field in (b"\xd0\x07\x01", b"\x98\x06\x00"):  # field 122 of the instance, field 99
        with pytest.raises(FormatError, match="later version"):
            decode(content + field, "it")
    variable = message_class("DecisionVariable")(id=3, kind=1).SerializeToString() + b"\xd0\x07\x01"
    with pytest.raises(FormatError, match="later version"):
        decode(content + b"\x12" + bytes([len(variable)]) + variable, "it")


# -- artifacts ---------------------------------------------------------------------------


def archive_of(content=None, **changed):
    """Return a tar archive of an artifact, with changed members."""
    layers = [] if content is None else [(INSTANCE, content)]
    layers = changed.pop("layers", layers)
    blobs, described = {}, []
    for kind, data in layers:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        described.append({"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)})
    manifest = json.dumps({"schemaVersion": 2, "layers": described}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = manifest
    index = {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{digest}"}]}
    blobs["index.json"] = json.dumps(index).encode()
    blobs |= {name.replace("index", "index.json"): data for name, data in changed.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in blobs.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_the_bytes_of_an_instance_are_a_file_too(tmp_path):
    (tmp_path / "bytes.ommx").write_bytes(encode(SMALL))
    assert_same_problem(SMALL, read(tmp_path / "bytes.ommx"))
    (tmp_path / "other.ommx").write_bytes(archive_of(encode(SMALL)))
    assert_same_problem(SMALL, read(tmp_path / "other.ommx"))


def test_artifacts_are_the_same_whenever_they_are_written(tmp_path):
    for name in ("first.ommx", "second.ommx"):
        write(SMALL, tmp_path / name)
    assert (tmp_path / "first.ommx").read_bytes() == (tmp_path / "second.ommx").read_bytes()


SOLUTION = "application/org.ommx.v1.solution"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive_of(layers=[(SOLUTION, b"x")]), f"0 layers of type.*{SOLUTION}"),
        (archive_of(layers=[(INSTANCE, b""), (INSTANCE, b"\x28\x01")]), "2 layers"),
        (archive_of(b"", index=b'{"manifests": []}'), "0 images"),
        (archive_of(b"", index=b"[1, 2]"), "not a readable OMMX artifact"),
        (archive_of(b"", index=b"[" * 10**5), "not a readable OMMX artifact"),
        (archive_of(b"", index=b'{"manifests": [{"digest": "sha256:00"}]}'), "not a readable"),
        (archive_of(encode(SMALL)).replace(b"cardinality", b"Cardinality"), "digest says"),
        (archive_of(b"\xff" * 20), "not a readable OMMX instance"),
    ],
)
def test_damaged_artifacts(tmp_path, content, message):
    (tmp_path / "bad.ommx").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "bad.ommx")


@pytest.mark.parametrize("kind", ["link", "hole"])
def test_links_and_holes_are_not_followed(tmp_path, kind):
    """A tar archive may point elsewhere, or claim a hole of any size."""
    member = tarfile.TarInfo("index.json")
    if kind == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
    else:
        member.size = 1
        sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)}
        member.pax_headers = sparse | {"GNU.sparse.numblocks": "1"}
    with tarfile.open(tmp_path / "odd.ommx", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"{"))
    with pytest.raises(FormatError, match="not a plain file"):
        read(tmp_path / "odd.ommx")


def test_without_ommx_the_remedy_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ommx.v1", None)
    with pytest.raises(ImportError, match=r'pip install "icbs-pruning\[ommx\]"'):
        to_instance(SMALL)
