"""Independent readers: energies and feasibility of states, directly from a file.

Each takes a path and all states, and returns their energies and whether each is feasible
(None where the format has no place for a cardinality).
"""

from __future__ import annotations

import json

import dimod
import numpy as np
import pytest
from dimod.serialization import coo as dimod_coo
from highs_reader import HighsReader


def by_dimod_lp(path, states):
    cqm = dimod.lp.load(str(path))
    names = [f"x{i}" for i in range(states.shape[1])]
    samples = [dict(zip(names, row, strict=True)) for row in states.tolist()]
    feasible = [cqm.check_feasible(sample) for sample in samples]
    if not cqm.objective.variables:  # dimod evaluates a constant to 0
        return np.full(len(states), float(cqm.objective.offset)), feasible
    return cqm.objective.energies((states, names)), feasible


def by_highs(path, states):
    reader = HighsReader(path)
    assert reader.n == states.shape[1]
    return reader.energy(states), reader.is_feasible(states)


def by_dimod_coo(path, states):
    """Only energies: dimod's file stores no offset and cardinality."""
    with open(path) as file:
        bqm = dimod_coo.load(file)
    n = states.shape[1]
    for i in range(n):
        bqm.add_variable(i)
    return bqm.energies((states, range(n))) if n else np.zeros(len(states)), None


def _of_bqm(bqm, states):
    """Only energies: a BQM stores no cardinality."""
    names = range(states.shape[1])
    assert sorted(bqm.variables) == list(names)
    # dimod has no energies of no variables.
    return bqm.energies((states, names)) if len(names) else np.full(1, float(bqm.offset)), None


def by_dimod_bqm(path, states):
    return _of_bqm(dimod.BinaryQuadraticModel.from_file(path.read_bytes()), states)


def by_dimod_json(path, states):
    return _of_bqm(
        dimod.BinaryQuadraticModel.from_serializable(json.loads(path.read_text())), states
    )


def by_dimod_cqm(path, states):
    cqm = dimod.ConstrainedQuadraticModel.from_file(path.read_bytes())
    names = range(states.shape[1])
    feasible = [cqm.check_feasible(dict(zip(names, row, strict=True))) for row in states.tolist()]
    return _of_bqm(cqm.objective, states)[0], feasible


def by_ommx(path, states):
    """OMMX's own reader of artifacts, and its own evaluation."""
    artifact = pytest.importorskip("ommx.artifact").Artifact
    instance = artifact.load_archive(path).instance
    answers = [instance.evaluate(dict(enumerate(map(float, row)))) for row in states]
    return np.array([a.objective for a in answers]), [a.feasible for a in answers]


def by_lines(doubled, base, sign):
    """Evaluate coordinate lines one at a time, by the table in their module."""

    def evaluate(path, states):
        energies = np.zeros(len(states))
        data = [line.split() for line in path.read_text().splitlines() if line[0] not in "#cp"]
        for i, j, v in data[0 if base == 0 else 1 :]:
            both = states[:, int(i) - base] * states[:, int(j) - base]
            energies += sign * float(v) * (2 if doubled and i != j else 1) * both
        return energies, None

    return evaluate


def by_the_appendix(path, states):
    """Evaluate a QPLIB text by the paper's appendix B, every listed product with a half."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    values = iter([line for line in lines if line])

    def scalar(kind=float):
        return kind(next(values)[0])

    def vector(size):
        filled = np.full(size, scalar())
        for _ in range(scalar(int)):
            i, v = next(values)
            filled[int(i) - 1] = float(v)
        return filled

    _, kind, sense, n = (scalar(str) for _ in range(4))
    n, m = int(n), scalar(int) if kind[2] == "L" else 0
    energies = np.zeros(len(states))
    for _ in range(scalar(int) if kind[0] != "L" else 0):
        i, j, v = next(values)
        energies += 0.5 * float(v) * states[:, int(i) - 1] * states[:, int(j) - 1]
    energies += states @ vector(n) + scalar()
    rows = np.zeros((m, n))
    for _ in range(scalar(int) if kind[2] == "L" else 0):
        row, i, v = next(values)
        rows[int(row) - 1, int(i) - 1] = float(v)
    scalar()  # infinity
    left, right = (vector(m), vector(m)) if kind[2] == "L" else (np.zeros(0), np.zeros(0))
    sums = states @ rows.T
    feasible = ((sums >= left) & (sums <= right)).all(axis=1)
    return (-energies if sense == "maximize" else energies), feasible


#: (format, reader): energies, and feasibility if the format stores it.
READERS = {
    "lp, dimod": ("lp", by_dimod_lp),
    "lp, HiGHS": ("lp", by_highs),
    "mps, HiGHS": ("mps", by_highs),
    "bqm, dimod": ("bqm", by_dimod_bqm),
    "json, dimod": ("json", by_dimod_json),
    "cqm, dimod": ("cqm", by_dimod_cqm),
    "ommx, OMMX": ("ommx", by_ommx),
    "qplib, appendix": ("qplib", by_the_appendix),
    "coo, dimod": ("coo", by_dimod_coo),
    "qubo, lines": ("qubo", by_lines(doubled=False, base=0, sign=1)),
    "ubqp, lines": ("ubqp", by_lines(doubled=True, base=1, sign=1)),
    "mqlib, lines": ("mqlib", by_lines(doubled=True, base=1, sign=-1)),
}
