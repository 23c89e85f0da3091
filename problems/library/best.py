"""Best values: verification, and improvement by checked states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from problems.errors import FormatError, InvalidProblemError
from problems.files import write_text
from problems.instance import checked_state
from problems.library.catalogue import BEST, LibraryProblem, best_values, index, load
from problems.packing import pack
from problems.scaling import coefficient_sum

#: Share of the coefficients' sum by which a bound may lie below an energy that it proves.
TOLERANCE = 1e-9


def verify(name: str) -> LibraryProblem:
    """Rebuild a problem and check its record.

    Checks the hash; that start and best state are feasible and have the recorded energies; that
    the best energy is not above the start's nor below the bound, and equals the bound if it is
    recorded as optimal.

    Raises
    ------
    UnknownProblemError
        If there is no problem of this name.
    FormatError
        If something differs; the message names it.
    """
    entry = load(name)
    record = index()["problems"][name]
    problem = entry.problem
    checks = {
        "n differs": (problem.n, problem.k) == (record["n"], record["k"]),
        "the start is not feasible": problem.is_feasible(entry.start),
        "the energy of the start is not 0": entry.start_energy == 0.0,
        "the best state is not feasible": problem.is_feasible(entry.best),
        "the energy of the best state differs": problem.energy(entry.best) == entry.best_energy,
        "the best state is worse than the start": entry.best_energy <= entry.start_energy,
        "the best energy is below the bound": entry.bound is None
        or entry.bound <= entry.best_energy,
        "optimality is claimed, and the bound is lower": not entry.proved
        or closed(entry.best_energy, entry.bound, coefficient_sum(problem)),
    }
    if wrong := [what for what, fine in checks.items() if not fine]:
        raise FormatError(f"{name}: {'; '.join(wrong)}")
    return entry


def improve(name: str, x: Any, *, by: str, file: str | Path = BEST) -> LibraryProblem:
    """Check and record a better state of a problem.

    Parameters
    ----------
    name : str
    x : array_like of 0/1, shape (n,)
        A feasible state of lower energy than the best one known.
    by : str
        Origin of the state: author, solver, options, time.
    file : path, optional
        File to write, by default that of the package. Another file becomes a copy of the
        package's values with this improvement; send it to the project.

    Returns
    -------
    LibraryProblem
        The updated entry.

    Raises
    ------
    UnknownProblemError
        If there is no problem of this name.
    InvalidProblemError
        If x is not a state, is not feasible, or is not better; nothing is written.
    OSError
        If the file can't be written.
    """
    entry = load(name)
    problem = entry.problem
    state = checked_state(problem, x, f"{name}: x")
    path = Path(file)
    known = best_values(path if path.exists() else BEST)
    best = known.get(name, {}).get("energy", 0.0)
    energy = float(problem.energy(state))
    if energy >= best:
        raise InvalidProblemError(
            f"{name}: x has the energy {energy!r}, which is not below the best known, {best!r}"
        )
    if entry.bound is not None and energy < entry.bound:
        raise InvalidProblemError(
            f"{name}: x has the energy {energy!r}, below the bound {entry.bound!r}, which must "
            "be wrong: report both to the project"
        )
    found = {"energy": energy, "state": pack(state), "by": by}
    write_best(known | {name: known.get(name, {}) | found}, path)
    changed = {"best": state, "best_energy": energy}
    return LibraryProblem(**vars(entry) | changed)


def closed(energy: float, bound: float | None, size: float) -> bool:
    """Whether a bound proves an energy, up to a solver's tolerance for rounding.

    Parameters
    ----------
    energy, bound : float
    size : float
        Sum of the magnitudes of the problem's coefficients.
    """
    return bound is not None and energy - bound <= TOLERANCE * size


def write_best(values: dict[str, dict[str, Any]], file: str | Path = BEST) -> None:
    """Write best values, one line per problem, in the order of the index."""
    order = [name for name in index()["problems"] if name in values]
    lines = [f"{json.dumps(name)}: {json.dumps(values[name])}" for name in order]
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")
