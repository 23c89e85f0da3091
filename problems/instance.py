"""A problem with what is known of it: a start, an answer, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from problems import npz
from problems.errors import FormatError, InvalidProblemError
from problems.groups import State
from problems.qubo import CardinalityQUBO
from problems.read_only import read_only


@dataclass(frozen=True, eq=False)
class Instance:
    """A problem, and what is known of it.

    Its file is that of :meth:`CardinalityQUBO.save <problems.CardinalityQUBO.save>` with up to
    three more entries, so that whatever reads problems reads it too.

    Parameters
    ----------
    problem : CardinalityQUBO
    name : str, optional
        The file's name without its ending, where it comes from a file.
    start : array_like of 0/1, shape (n,), optional
        Feasible state to start from: for a block of a pruning run the mask as it stood, whose
        energy is 0.
    answer : array_like of 0/1, shape (n,), optional
        Feasible state that a solver answered with.
    about : mapping, optional
        How it was made and what became of it; what JSON can hold.

    Raises
    ------
    InvalidProblemError
        If a state is not one of the problem, or misses its cardinality.
    """

    problem: CardinalityQUBO
    name: str = ""
    start: State | None = None
    answer: State | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("start", "answer"):
            given = getattr(self, role)
            if given is not None:
                object.__setattr__(self, role, _feasible(self.problem, given, role))

    @property
    def best_energy(self) -> float | None:
        """Lower energy of start and answer; None where there is neither."""
        known = [state for state in (self.start, self.answer) if state is not None]
        return min((float(self.problem.energy(state)) for state in known), default=None)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file, whole or not at all; equal content makes equal bytes.

        Raises
        ------
        InvalidProblemError
            If JSON can't hold ``about``.
        OSError
            If the file can't be written.
        """
        npz.write(path, self._fields())

    def largest_size(self) -> int:
        """Return bytes that the file of :meth:`save` does not exceed, without making it."""
        return npz.largest_size(self._fields())

    def _fields(self) -> dict[str, Any]:
        try:
            about = json.dumps(dict(self.about), sort_keys=True, allow_nan=False)
        except (RecursionError, TypeError, ValueError) as error:
            raise InvalidProblemError(
                f"about can't be kept as JSON ({error}); give text, finite numbers, lists and dicts"
            ) from error
        known = {"start": self.start, "answer": self.answer, "about": about if self.about else None}
        return npz.fields_of(self.problem) | known

    @classmethod
    def load(cls, path: str | Path) -> Instance:
        """Read what :meth:`save`, or :meth:`CardinalityQUBO.save`, wrote.

        Raises
        ------
        FormatError
            If the file is damaged, is not such a file, or describes no valid problem or state.
        FileNotFoundError
            If there is no such file.
        """
        known = npz.read_known(path)
        about = _parsed(known["about"], path)
        problem = CardinalityQUBO.load(path)
        try:
            return cls(problem, Path(path).stem, known["start"], known["answer"], about)
        except InvalidProblemError as error:
            raise FormatError(f"{path} holds a state of another problem: {error}") from error


def load_instances(folder: str | Path) -> Iterator[Instance]:
    """Read the problems of a folder one by one, in the order of their names.

    Parameters
    ----------
    folder : path
        Its ``.npz`` files are read, such as those of ``RUN/blocks`` that a pruning run with
        ``save_blocks`` leaves.

    Raises
    ------
    FormatError
        If there is no such file, or one of them can't be read as a problem.
    """
    for path in instance_files(folder):
        yield Instance.load(path)


def instance_files(folder: str | Path) -> list[Path]:
    """List the problem files (``.npz``) of a folder by name.

    Raises
    ------
    FormatError
        If it is not a folder, or has none.
    """
    found = sorted(path for path in Path(folder).glob("*.npz") if path.is_file())
    if not found:
        raise FormatError(f"{folder} holds no problem file (.npz)")
    return found


def read_about(path: str | Path) -> dict[str, Any]:
    """Read the notes of a problem file without its coefficients; empty where it has none.

    Raises
    ------
    FormatError, FileNotFoundError
        As :meth:`Instance.load`.
    """
    return _parsed(npz.read_known(path)["about"], path)


def _feasible(problem: CardinalityQUBO, given: Any, role: str) -> State:
    """Check a state and hold a copy of it, read-only."""
    try:
        state = problem.as_states(given)
    except InvalidProblemError as error:
        raise InvalidProblemError(f"{role}: {error}") from error
    if state.ndim != 1:
        raise InvalidProblemError(f"{role} has shape {state.shape}; give one state ({problem.n},)")
    counts = problem.count(state[None])[0]
    if len(wrong := np.flatnonzero(counts != problem.cardinalities)):
        group = wrong[0]
        raise InvalidProblemError(
            f"{role} has {counts[group]} ones in group {group}, which holds "
            f"{problem.cardinalities[group]}"
        )
    return read_only(state)


def _parsed(text: str | None, path: str | Path) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        about = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise FormatError(f"{path} has notes that can't be read: {error!s:.200}") from error
    if not isinstance(about, dict):
        raise FormatError(f"{path} has notes that are not an object of JSON")
    return about
