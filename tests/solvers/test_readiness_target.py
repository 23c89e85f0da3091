"""Targets: figures with sources, and refusal of impossible ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from solvers.errors import TargetError
from solvers.readiness import available_targets, load_target, load_targets
from solvers.readiness.target import KINDS, lattice_size

GATE = {
    "name": "mine",
    "kind": "gate",
    "topology": "explicit",
    "qubits": 3,
    "couplings": [[0, 1], [1, 2]],
    "basis_gates": ["cx", "rz", "sx"],
    "one_qubit_error": 1e-4,
    "two_qubit_error": 1e-3,
    "readout_error": 1e-2,
    "one_qubit_time": 2e-8,
    "two_qubit_time": 8e-8,
    "readout_time": 1e-6,
    "t1": 1e-4,
    "t2": 1e-4,
}
ANNEALER = {
    "name": "mine",
    "kind": "annealer",
    "topology": "zephyr",
    "m": 4,
    "t": 4,
    "faulty_qubits": 0.01,
    "faulty_couplers": 0.01,
    "anneal_time": 2e-5,
    "readout_time": 1e-4,
    "delay_time": 2e-5,
    "programming_time": 1e-2,
    "h_range": [-4, 4],
    "j_range": [-1, 1],
    "bits": 5,
}


def with_source(content, **changes):
    content = {**content, **changes}
    figures = [name for name in content if name not in ("name", "kind", "description")]
    source = {"figures": figures, "source": "assumption: a test", "date": "2026-01-31"}
    return {**content, "sources": [source]}


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize("name", available_targets())
def test_targets_of_the_package_have_sources_and_dates(name):
    target = load_target(name)
    assert target.name == name
    assert KINDS[target.kind] is type(target)
    for figure in target.model_fields_set - target.plain:
        assert target.source_of(figure).date.year >= 2020


def test_a_file_of_a_user(written):
    target = load_target(written(with_source(GATE)))
    assert (target.name, target.qubits, target.couplings) == ("mine", 3, ((0, 1), (1, 2)))
    assert target.source_of("t1").assumed
    assert load_target(written(with_source(ANNEALER))).j_range == (-1, 1)


def test_numbers_without_a_point_are_read(written):
    # YAML 1.1 reads 1e-3 as text.
    text = yaml.safe_dump(with_source(GATE)).replace("t2: 0.0001", "t2: 1e-4")
    assert load_target(written(text)).t2 == 1e-4


def test_names_kinds_and_paths_in_a_list(written):
    path = written(with_source(GATE))
    names = [target.name for target in load_targets(f"grid, fault-tolerant,{path},grid")]
    assert names == ["grid", "neutral-atom", "superconducting", "mine"]
    other = load_target("grid").model_copy(update={"name": "mine"})
    with pytest.raises(TargetError, match="two targets are named 'mine'"):
        load_targets([path, other])


def test_an_unknown_name_lists_the_known():
    with pytest.raises(TargetError, match="did you mean 'heavy-hex'.*known: .*grid"):
        load_target("heavyhex")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_source(GATE, two_qubit_error=1.7), "two_qubit_error is 1.7; input should be less"),
        (with_source(GATE, two_qubit_error=float("nan")), "two_qubit_error is nan"),
        (with_source(GATE, readout_time=-1), "readout_time is -1; .*greater than 0"),
        (with_source(GATE, t2=1e-3), "t2 is 0.001 s; it can't exceed twice t1"),
        (with_source(GATE, t1="long"), "t1 is 'long'; .*valid number"),
        (with_source(GATE, qubits=1), "qubits is 1"),
        (with_source(GATE, topology="ring"), "topology is 'ring'; .*heavy-hex"),
        (with_source(GATE, topology="grid", couplings=None), "rows is needed"),
        (with_source(GATE, couplings=[[0, 3]]), r"couplings contain \(0, 3\)"),
        (with_source(GATE, couplings=[[0, 1]]), "do not connect all qubits"),
        (with_source(GATE, basis_gates=["rz", "sx"]), "basis_gates are rz, sx; one of"),
        (
            with_source(GATE, basis_gates=["rz", "cx"]),
            "for any rotation of a qubit u, or rz and sx",
        ),
        (with_source(GATE, basis_gates=["rz", "sz", "cx"]), "basis_gates contain 'sz' .did you"),
        (with_source(GATE, two_qubit_eror=0.1), "two_qubit_eror is not a field.*two_qubit_error"),
        (with_source({k: v for k, v in GATE.items() if k != "t1"}), "t1 is missing; add it"),
        (GATE, "sources is missing"),
        (with_source(GATE, kind="laptop"), "kind is 'laptop'; it must be one of gate, annealer"),
        (with_source(ANNEALER, t=None), "t is needed with the topology zephyr"),
        (with_source(ANNEALER, j_range=[1, 2]), "j_range is .*must contain 0"),
        (with_source(ANNEALER, faulty_qubits=0.9), "faulty_qubits is 0.9"),
        ("nothing", "contains no fields"),
        ("a: [", "is not YAML"),
    ],
)
def test_absurd_and_missing_figures_are_named(written, content, message):
    with pytest.raises(TargetError, match=message):
        load_target(written(content))


def test_every_figure_needs_one_source(written):
    content = with_source(GATE)
    content["sources"][0]["figures"].remove("t1")
    with pytest.raises(TargetError, match="t1 has no source"):
        load_target(written(content))
    content["sources"][0]["figures"] += ["t1", "t2"]
    with pytest.raises(TargetError, match="'t2' twice"):
        load_target(written(content))


def test_the_page_has_the_figures_of_the_files():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "readiness.md"
    rows = {
        found[1]: found[2]
        for found in re.finditer(
            r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|", page.read_text("utf-8"), re.M
        )
    }
    assert set(rows) >= set(available_targets())
    for name, kind in available_targets().items():
        if kind == "annealer":
            continue
        target = load_target(name)
        readout = target.readout_error if kind == "gate" else target.measurement_error
        expected = [target.one_qubit_error, target.two_qubit_error, readout]
        assert [float(text) for text in rows[name].strip().split(", ")] == expected


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(TargetError, match=re.escape(str(tmp_path / "none.yaml"))):
        load_target(tmp_path / "none.yaml")


def test_sizes_of_lattices():
    assert lattice_size(load_target("heavy-hex")) == 156
    assert lattice_size(load_target("grid")) == 120
