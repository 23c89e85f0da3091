"""A problem's file may hold a start, an answer and notes, and stays a problem's file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problem_cases import SMALL, any_problems
from test_hostile_npz import npy, npz_with, packed

from problems import CardinalityQUBO, FormatError, Instance, InvalidProblemError, load_instances
from problems.formats import read, write
from problems.instance import read_about

#: Files that version 0.1 wrote, and their hashes.
OLD = {
    "npz-1-dense.npz": "7d306fbbf553bc76a6258988bf7e98c3fd221047ac7b2a10bcfac4ff88bdecfe",
    "npz-1-factors.npz": "02bfccf64ce0cd1172b1bd2cf4079c368728bb498cc0e5d7d4d21a235489f813",
}
notes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@st.composite
def instances(draw):
    problem = draw(any_problems())

    def state():
        order = np.array(draw(st.permutations(range(problem.n))), dtype=float)
        return problem.minimise_linear(order)

    return Instance(
        problem,
        start=state() if draw(st.booleans()) else None,
        answer=state() if draw(st.booleans()) else None,
        about=draw(st.dictionaries(st.text(), notes, max_size=4)),
    )


@given(instances())
def test_everything_comes_back(tmp_path_factory, instance):
    path = tmp_path_factory.getbasetemp() / "instance.npz"
    instance.save(path)
    again = Instance.load(path)
    assert again.name == "instance"
    assert again.problem.hash == instance.problem.hash
    assert again.about == instance.about == read_about(path)
    for role in ("start", "answer"):
        before, after = getattr(instance, role), getattr(again, role)
        assert (before is None) == (after is None)
        if before is not None:
            assert np.array_equal(before, after)
            assert after.dtype == np.uint8
            assert not after.flags.writeable
    # Whatever reads problems reads it too, and so does NumPy alone.
    for problem in (CardinalityQUBO.load(path), read(path)):
        assert problem.hash == instance.problem.hash
    with np.load(path, allow_pickle=False) as plain:
        assert ("start" in plain) == (instance.start is not None)
        if instance.start is not None:
            assert np.array_equal(plain["start"], instance.start)
    assert path.stat().st_size <= instance.largest_size()
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before


@given(any_problems())
def test_without_anything_known_it_is_the_file_of_the_problem(tmp_path_factory, problem):
    folder = tmp_path_factory.getbasetemp()
    problem.save(folder / "problem.npz")
    Instance(problem).save(folder / "instance.npz")
    assert (folder / "problem.npz").read_bytes() == (folder / "instance.npz").read_bytes()
    bare = Instance.load(folder / "problem.npz")
    assert (bare.start, bare.answer, bare.about, bare.best_energy) == (None, None, {}, None)


@pytest.mark.parametrize("name", OLD)
def test_files_of_version_0_1_are_read_and_written_as_they_were(tmp_path, name):
    old = Path(__file__).parent / "data" / name
    problem = CardinalityQUBO.load(old)
    assert problem.hash == OLD[name] == Instance.load(old).problem.hash
    problem.save(tmp_path / name)
    write(problem, tmp_path / f"again-{name}")
    for new in (tmp_path / name, tmp_path / f"again-{name}"):
        # Entry by entry: compressors differ from one machine to another.
        with zipfile.ZipFile(old) as before, zipfile.ZipFile(new) as after:
            assert before.namelist() == after.namelist()
            assert [*map(before.read, before.namelist())] == [*map(after.read, after.namelist())]


def test_the_size_is_bounded_where_nothing_can_be_compressed(tmp_path):
    random = np.random.default_rng(0).bytes(8 * 300 * 200)
    A = np.frombuffer(random, np.uint64).reshape(300, 200) >> np.uint64(12) | np.uint64(1023 << 52)
    problem = CardinalityQUBO.from_factors(A.view(np.float64), np.ones(200), 100)
    instance = Instance(problem, start=[1] * 100 + [0] * 100, about={"a": "ü" * 1000})
    instance.save(tmp_path / "a.npz")
    size = (tmp_path / "a.npz").stat().st_size
    assert 0.9 * A.nbytes < size <= instance.largest_size() < 1.1 * A.nbytes


def test_the_best_energy_is_that_of_the_better_state():
    start, answer = [1, 0, 0], [0, 1, 0]
    problem = CardinalityQUBO(np.diag([1.0, -2.0, 3.0]), 1)
    assert Instance(problem, start=start).best_energy == 1
    assert Instance(problem, start=start, answer=answer).best_energy == -2
    assert Instance(problem, start=answer, answer=start).best_energy == -2


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"start": [1, 0]}, r"start: state has shape \(2,\)"),
        ({"start": [[1, 0, 1]]}, r"start has shape \(1, 3\); pass one state, \(3,\)"),
        ({"answer": [2, 0, 1]}, "answer: a state may hold 0 and 1 only"),
        ({"answer": [1, 1, 0]}, "answer has 2 ones in group 0; its cardinality is 1"),
    ],
)
def test_a_state_of_another_problem_is_refused(changed, match):
    with pytest.raises(InvalidProblemError, match=match):
        Instance(SMALL, **changed)


@pytest.mark.parametrize("about", [{"a": float("nan")}, {"a": {1, 2}}, {"a": b"b"}])
def test_notes_that_json_can_not_hold_are_refused(tmp_path, about):
    with pytest.raises(InvalidProblemError, match="about can't be saved as JSON"):
        Instance(SMALL, about=about).save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


HOSTILE = {
    "a start of another problem": ({"start": npy(np.uint8([1, 1]))}, "start has 2 ones in group 0"),
    "a long start": ({"start": npy(np.uint8([1, 0, 0]))}, r"start: state has shape \(3,\)"),
    "a start of threes": ({"answer": npy(np.uint8([3, 0]))}, "answer: a state may hold 0 and 1"),
    "notes that are not JSON": ({"about": npy("{")}, "has damaged notes"),
    "notes without end": ({"about": npy("[" * 100_000)}, "has damaged notes"),
    "a list of notes": ({"about": npy("[1]")}, "not a JSON object"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_with_something_else_is_refused(tmp_path, case):
    entries, match = HOSTILE[case]
    path = tmp_path / "a.npz"
    path.write_bytes(npz_with(**entries))
    with pytest.raises(FormatError, match=match):
        Instance.load(path)
    assert CardinalityQUBO.load(path).n == 2  # the problem itself is whole


@pytest.mark.parametrize("entry", ["start", "about"])
def test_entries_of_another_kind_are_refused_by_all_readers(tmp_path, entry):
    path = tmp_path / "a.npz"
    path.write_bytes(npz_with(**{entry: npy(np.zeros(2))}))
    for reader in (Instance.load, CardinalityQUBO.load, read_about):
        with pytest.raises(FormatError, match=f"{entry!r} has dtype float64"):
            reader(path)


def test_notes_are_read_without_the_coefficients(tmp_path):
    path = tmp_path / "a.npz"
    problem = CardinalityQUBO(np.diag([1.0] * 99 + [7.25]), 1)
    Instance(problem, about={"layer": "fc"}).save(path)
    with zipfile.ZipFile(path) as whole:
        entries = [(name, whole.read(name)) for name in whole.namelist()]
    content = packed(entries)  # stored, so that the coefficients can be spoilt
    at = content.index(np.float64(7.25).tobytes())
    path.write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])
    assert read_about(path) == {"layer": "fc"}
    with pytest.raises(FormatError, match="not a readable .npz"):
        Instance.load(path)


def test_a_folder_is_read_by_name(tmp_path):
    for name in ("c", "a", "b"):
        Instance(SMALL, about={"is": name}).save(tmp_path / f"{name}.npz")
    (tmp_path / "blocks.csv").write_text("file\n")
    found = list(load_instances(tmp_path))
    assert [(each.name, each.about["is"]) for each in found] == [(n, n) for n in "abc"]
    for empty in (tmp_path / "none", tmp_path / "blocks.csv"):
        with pytest.raises(FormatError, match="has no problem file"):
            list(load_instances(empty))
