"""Problem instances: a problem with a start, a solution and notes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from problems import npz
from problems.budget import BudgetQUBO
from problems.errors import FormatError, InvalidProblemError
from problems.groups import State
from problems.loading import load_problem
from problems.qubo import CardinalityQUBO
from problems.read_only import read_only


@dataclass(frozen=True, eq=False)
class Instance:
    """A problem with a start, a solution and notes, each optional.

    The file has the entries of :meth:`CardinalityQUBO.save <problems.CardinalityQUBO.save>` and
    up to three more, so that all readers of problems can read it.

    Parameters
    ----------
    problem : CardinalityQUBO or BudgetQUBO
    name : str, optional
        Name of the file without its extension, if read from a file.
    start : array_like of 0/1, shape (n,), optional
        Feasible state to start from. For a block of a pruning run: the current mask, of energy 0.
    answer : array_like of 0/1, shape (n,), optional
        Feasible state found by a solver.
    about : mapping, optional
        Notes, such as settings and outcomes; serialisable as JSON.

    Raises
    ------
    InvalidProblemError
        If a state has the wrong shape or misses the cardinality.
    """

    problem: CardinalityQUBO | BudgetQUBO
    name: str = ""
    start: State | None = None
    answer: State | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("start", "answer"):
            given = getattr(self, role)
            if given is not None:
                object.__setattr__(self, role, checked_state(self.problem, given, role))

    @property
    def best_energy(self) -> float | None:
        """Lower of the energies of start and answer; None without either."""
        known = [state for state in (self.start, self.answer) if state is not None]
        return min((float(self.problem.energy(state)) for state in known), default=None)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file atomically; equal contents give equal bytes.

        Raises
        ------
        InvalidProblemError
            If ``about`` can't be serialised as JSON.
        OSError
            If the file can't be written.
        """
        npz.write(path, self._fields())

    def largest_size(self) -> int:
        """Return an upper bound on the size of the file in bytes, without writing it."""
        return npz.largest_size(self._fields())

    def _fields(self) -> dict[str, Any]:
        try:
            about = json.dumps(dict(self.about), sort_keys=True, allow_nan=False)
        except (RecursionError, TypeError, ValueError) as error:
            raise InvalidProblemError(
                f"about can't be saved as JSON ({error}); use text, finite numbers, lists and dicts"
            ) from error
        known = {"start": self.start, "answer": self.answer, "about": about if self.about else None}
        return npz.fields_of(self.problem) | known

    @classmethod
    def load(cls, path: str | Path) -> Instance:
        """Read a file of :meth:`save` or :meth:`CardinalityQUBO.save`.

        Raises
        ------
        FormatError
            If the file is damaged, has another format, or the problem or a state is invalid.
        FileNotFoundError
            If there is no such file.
        """
        known = npz.read_known(path)
        about = _parsed(known["about"], path)
        problem = load_problem(path)
        try:
            return cls(problem, Path(path).stem, known["start"], known["answer"], about)
        except InvalidProblemError as error:
            raise FormatError(f"{path} has an invalid state: {error}") from error


def load_instances(folder: str | Path) -> Iterator[Instance]:
    """Read the ``.npz`` files of a folder one after another, sorted by name.

    Parameters
    ----------
    folder : path
        For example ``RUN/blocks`` of a pruning run with ``save_blocks``.

    Raises
    ------
    FormatError
        If the folder has no such file, or one of them is not a problem file.
    """
    for path in instance_files(folder):
        yield Instance.load(path)


def instance_files(folder: str | Path) -> list[Path]:
    """Return the ``.npz`` files of a folder, sorted by name.

    Raises
    ------
    FormatError
        If there are none, or it is not a folder.
    """
    found = sorted(path for path in Path(folder).glob("*.npz") if path.is_file())
    if not found:
        raise FormatError(f"{folder} has no problem file (.npz)")
    return found


def read_about(path: str | Path) -> dict[str, Any]:
    """Read the notes of a problem file without its coefficients; empty without notes.

    Raises
    ------
    FormatError, FileNotFoundError
        As :meth:`Instance.load`.
    """
    return _parsed(npz.read_known(path)["about"], path)


def checked_state(problem: CardinalityQUBO | BudgetQUBO, given: Any, role: str) -> State:
    """Check that a state is feasible and return a read-only copy, shape (n,).

    Raises
    ------
    InvalidProblemError
        With ``role``, the name of the state, and what is wrong.
    """
    try:
        state = problem.as_states(given)
    except InvalidProblemError as error:
        raise InvalidProblemError(f"{role}: {error}") from error
    if state.ndim != 1:
        raise InvalidProblemError(f"{role} has shape {state.shape}; pass one state, ({problem.n},)")
    if isinstance(problem, BudgetQUBO):
        if wrong := problem.infeasibility(state):
            raise InvalidProblemError(f"{role} {wrong}")
        return read_only(state)
    counts = problem.count(state[None])[0]
    if len(missed := np.flatnonzero(counts != problem.cardinalities)):
        group = missed[0]
        raise InvalidProblemError(
            f"{role} has {counts[group]} ones in group {group}; its cardinality "
            f"is {problem.cardinalities[group]}"
        )
    return read_only(state)


def _parsed(text: str | None, path: str | Path) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        about = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise FormatError(f"{path} has damaged notes: {error!s:.200}") from error
    if not isinstance(about, dict):
        raise FormatError(f"{path} has notes that are not a JSON object")
    return about
