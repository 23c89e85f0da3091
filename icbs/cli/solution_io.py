"""Solutions in files and on the screen, and files of initial states."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from problems import FormatError
from problems.archive import read_arrays
from problems.files import atomic, write_text
from problems.free import original_states
from problems.labels import Labels, display_names, to_json
from solvers import Solution

#: Entries of a solution's ``.npz``; ``record`` is JSON with everything except the states.
_ENTRIES = {
    "x": ("u", 1),
    "samples": ("u", 2),
    "energies": ("f", 1),
    "feasible": ("b", 1),
    "repaired": ("b", 1),
    "record": ("U", 0),
    "labels": ("U", 0),
}


#: Length up to which a state is printed as bits; a list of variables may be twice as long.
_MAX_BITS = 40


def record(solution: Solution) -> dict[str, Any]:
    """Return a solution without its states, in types of JSON."""
    timing = solution.timing
    return {
        "energy": _finite(solution.energy),
        "status": solution.status.value,
        "stop": solution.stop.value,
        "bound": _finite(solution.bound),
        "gap": _finite(solution.gap),
        "samples": len(solution.samples),
        "feasible": int(solution.feasible.sum()),
        "repaired": int(solution.repaired.sum()),
        "timing": {
            "build": timing.build,
            "solve": timing.solve,
            "decode": timing.decode,
            "total": timing.total,
        },
        "info": _bounded(json.loads(json.dumps(solution.info, default=_plain))),
    }


def record_with_state(solution: Solution, labels: Labels | None) -> dict[str, Any]:
    """Return :func:`record` with the best state as ``x`` and, for named variables, ``values``."""
    x = None if solution.x is None else solution.x.tolist()
    found = record(solution) | {"x": x}
    if labels is not None:
        names = display_names(labels, len(labels))
        found["values"] = None if x is None else dict(zip(names, x, strict=True))
    return found


def without_partners(solution: Solution) -> Solution:
    """Return the solution of a problem of :func:`problems.free.free` in its first n variables."""
    x = None if solution.x is None else original_states(solution.x)
    return dataclasses.replace(solution, x=x, samples=original_states(solution.samples))


def check_output(path: Path) -> None:
    """Refuse a file that a solution can't be saved to.

    Raises
    ------
    FormatError
        If the extension is not .npz, .json or .txt.
    FileNotFoundError
        If its folder is missing.
    """
    if path.suffix not in (".npz", ".json", ".txt"):
        raise FormatError(f"{path}: a solution can only be saved as .npz, .json or .txt")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; create it first")


def write_solution(solution: Solution, path: Path, labels: Labels | None = None) -> None:
    """Save a solution as ``.npz`` (all samples), ``.json`` or ``.txt`` (the best state).

    A ``.txt`` has a line ``name value`` for each variable, and is empty without a state. Names
    may have blanks; variables without names have their numbers.

    Raises
    ------
    FormatError, OSError
        See :func:`check_output`; also if the file can't be written.
    """
    check_output(path)
    x = solution.x
    if path.suffix == ".json":
        write_text(path, json.dumps(record_with_state(solution, labels), indent=2) + "\n")
    elif path.suffix == ".txt":
        lines = []
        if x is not None:
            pairs = zip(display_names(labels, len(x)), x.tolist(), strict=True)
            lines = [f"{name} {value}\n" for name, value in pairs]
        write_text(path, "".join(lines))
    else:
        arrays: dict[str, Any] = {
            "samples": solution.samples,
            "energies": solution.energies,
            "feasible": solution.feasible,
            "repaired": solution.repaired,
            "record": np.array(json.dumps(record(solution))),
        }
        if x is not None:
            arrays["x"] = x
        if labels is not None:
            arrays["labels"] = np.array(to_json(labels))
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


def read_initial_state(path: Path) -> npt.NDArray[Any]:
    """Read a state: the ``x`` of a saved solution, or an ``.npy`` array.

    Raises
    ------
    FormatError
        If the file is damaged or has no state.
    FileNotFoundError
        If the file does not exist.
    """
    try:
        if path.suffix == ".npz":
            x = read_arrays(path, _ENTRIES).get("x")
        elif path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            x = content.get("x") if isinstance(content, dict) else content
        elif path.suffix == ".npy":
            # Mapped, so that the declared size is checked before memory is allocated.
            x = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        else:
            raise FormatError(f"{path}: a state can only be read from .npz, .json or .npy")
        if x is None:
            raise FormatError(f"{path} has no state 'x'")
        return np.asarray(x)
    except (FileNotFoundError, FormatError):
        raise
    except Exception as error:  # damaged files cause arbitrary errors in the parsers
        raise FormatError(f"{path} is not a readable state: {error!s:.200}") from error


def table(
    solution: Solution,
    title: str,
    labels: Labels | None = None,
    start_energy: float | None = None,
) -> Table:
    """Return a solution as a table, with its state if that is short."""
    found, timing = record(solution), solution.timing
    rows = {
        "energy": _number(solution.energy if solution.x is not None else None),
        "status": found["status"],
        "stopped by": found["stop"],
        "bound": _number(solution.bound),
        "gap": "-" if solution.gap is None else f"{solution.gap:.3%}",
        "samples": (
            f"{found['samples']} ({found['feasible']} feasible, {found['repaired']} repaired)"
        ),
        "seconds": (
            f"{timing.total:.3f} (build {timing.build:.3f}, solve {timing.solve:.3f}, "
            f"decode {timing.decode:.3f})"
        ),
        "seed": "-" if (seed := solution.info.get("seed")) is None else str(seed),
    }
    if start_energy is not None:
        rows["start energy"] = _number(start_energy)
    if refuted := solution.info.get("refuted"):
        rows["refuted"] = str(refuted)
    if solution.x is not None:
        rows |= _state(solution.x, labels)
    result = Table(title=title, show_header=False)
    for name, value in rows.items():
        result.add_row(name, Text(value))  # not parsed as markup
    return result


def _state(x: npt.NDArray[Any], labels: Labels | None) -> dict[str, str]:
    """Return a state as a row of the table: its bits, or the variables that are 1 if shorter."""
    names = display_names(labels, len(x))
    ones = ", ".join(names[i] for i in np.flatnonzero(x)) or "none"
    rows = {"x = 1": ones} if len(ones) <= 2 * _MAX_BITS else {}
    bits = "".join(map(str, x.tolist()))
    if len(bits) <= _MAX_BITS and not (rows and (labels is not None or len(ones) < len(bits))):
        rows = {"x": bits}
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.12g}"


def _finite(value: float | None) -> float | None:
    """Replace infinity and NaN, which JSON lacks, by None."""
    return None if value is None or not math.isfinite(value) else float(value)


def _bounded(value: Any) -> Any:
    """Apply :func:`_finite` to all floats in nested lists and dicts."""
    if isinstance(value, dict):
        return {key: _bounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    return _finite(value) if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    """Convert NumPy's types to JSON's, and other types to strings."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
