"""Solutions in files and on the screen, and states to start from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from problems import FormatError
from problems.archive import read_arrays
from problems.files import atomic, write_text
from solvers import Solution

#: Entries of a solution's ``.npz``; ``record`` is the JSON of everything but the states.
_ENTRIES = {
    "x": ("u", 1),
    "samples": ("u", 2),
    "energies": ("f", 1),
    "feasible": ("b", 1),
    "repaired": ("b", 1),
    "record": ("U", 0),
}


def record(solution: Solution) -> dict[str, Any]:
    """Return what a solution says, but for its states, in JSON's own types."""
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
        "info": json.loads(json.dumps(solution.info, default=_plain)),
    }


def check_output(path: Path) -> None:
    """Refuse a file that a solution can't be saved in, before the work that makes it.

    Raises
    ------
    FormatError
        If the name ends neither in .npz nor in .json.
    FileNotFoundError
        If its folder is missing.
    """
    if path.suffix not in (".npz", ".json"):
        raise FormatError(f"{path}: a solution is saved as .npz or .json")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder is missing; make it first")


def write_solution(solution: Solution, path: Path) -> None:
    """Save a solution as ``.npz`` (all samples) or ``.json`` (the best state).

    Raises
    ------
    FormatError, OSError
        As :func:`check_output`, or if the file can't be written.
    """
    check_output(path)
    x = solution.x
    if path.suffix == ".json":
        states = {"x": None if x is None else x.tolist()}
        write_text(path, json.dumps(record(solution) | states, indent=2) + "\n")
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
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


def read_state(path: Path) -> npt.NDArray[Any]:
    """Read a state: a saved solution's ``x``, or an ``.npy`` array.

    Raises
    ------
    FormatError
        If the file is damaged or holds no state.
    FileNotFoundError
        If there is no such file.
    """
    try:
        if path.suffix == ".npz":
            x = read_arrays(path, _ENTRIES).get("x")
        elif path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            x = content.get("x") if isinstance(content, dict) else content
        elif path.suffix == ".npy":
            # Mapped, so that a claimed size is held against the file's before it is taken.
            x = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        else:
            raise FormatError(f"{path}: a state is read from .npz, .json or .npy")
        if x is None:
            raise FormatError(f"{path} holds no state 'x'")
        return np.asarray(x)
    except (FileNotFoundError, FormatError):
        raise
    except Exception as error:  # NumPy's and JSON's parsers raise what Python's own do
        raise FormatError(f"{path} holds no state: {error!s:.200}") from error


def table(solution: Solution, title: str) -> Table:
    """Lay a solution out for the screen."""
    said, timing = record(solution), solution.timing
    rows = {
        "energy": _number(solution.energy if solution.x is not None else None),
        "status": said["status"],
        "stopped by": said["stop"],
        "bound": _number(solution.bound),
        "gap": "-" if solution.gap is None else f"{solution.gap:.3%}",
        "samples": f"{said['samples']} ({said['feasible']} feasible, {said['repaired']} repaired)",
        "seconds": (
            f"{timing.total:.3f} (build {timing.build:.3f}, solve {timing.solve:.3f}, "
            f"decode {timing.decode:.3f})"
        ),
        "seed": str(solution.info.get("seed", "-")),
    }
    result = Table(title=title, show_header=False)
    for name, value in rows.items():
        result.add_row(name, value)
    return result


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.12g}"


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    """Bring NumPy's types to JSON's, and name what has no place there."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
