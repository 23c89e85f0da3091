"""Problems of a campaign: their files, starts and best known energies."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO, FormatError, Instance, InvalidProblemError
from problems.files import atomic, regular
from problems.formats import FORMATS, format_name, read
from problems.instance import checked_state
from problems.mean_energy import mean_energy
from problems.packing import pack, unpack
from problems.read_only import read_only
from problems.scaling import check_energies, coefficient_sum
from problems.suggest import did_you_mean
from solvers.base import State
from solvers.comparison.config import ProblemSpec
from solvers.errors import CampaignError

_LIBRARY = "library:"


@dataclass(frozen=True)
class Source:
    """Location of a problem, for this process or another."""

    place: str
    """``library:NAME``, or an absolute path."""
    format: str | None = None
    k: int | None = None
    free: bool = False

    def load(self) -> CardinalityQUBO:
        """Read the problem.

        Raises
        ------
        FormatError, FileNotFoundError
            As :func:`problems.formats.read`.
        CampaignError
            If it has a budget.
        """
        if self.place.startswith(_LIBRARY):
            problem: CardinalityQUBO = _library().load(self.place.removeprefix(_LIBRARY)).problem
            return problem
        found = read(self.place, self.format, k=self.k, free=self.free)
        return _without_budget(found, Path(self.place).stem)


@dataclass(frozen=True)
class Case:
    """A problem of a campaign, without its coefficients."""

    name: str
    source: Source = field(compare=False)
    hash: str
    n: int
    k: int
    groups: int
    family: str = ""
    start: str = field(default="", repr=False)
    """Status quo, :func:`problems.packing.pack`; empty if there is none."""
    start_energy: float = math.nan
    """Energy of the status quo, or the mean over all feasible states."""
    start_kind: str = "random mean"
    """``"status quo"`` or ``"random mean"``."""
    best: float = math.nan
    proved: bool = False
    magnitude: float = 0.0
    """Sum of all absolute coefficients; the unit of rounding errors of energies."""
    offset: float = 0.0

    def state(self) -> State | None:
        """Return the status quo, shape (n,)."""
        return read_only(unpack(self.start, self.n)) if self.start else None


def examine(specs: Sequence[ProblemSpec], folder: Path) -> Iterator[tuple[Case, CardinalityQUBO]]:
    """Read every problem once, with its start and best known energy.

    Parameters
    ----------
    specs : sequence of ProblemSpec
    folder : Path
        Folder in which problems that were passed as objects are stored, for other processes.

    Raises
    ------
    CampaignError
        If a name is unknown or a duplicate, or a start does not fit its problem.
    FormatError, FileNotFoundError
        If a file can't be read.
    """
    seen: set[str] = set()
    found = [(spec, _places(spec)) for spec in specs]
    names = distinct_names([place for spec, places in found if spec.path for place in places])
    for spec, places in found:
        for place in places:
            case, problem = _examined(spec, place, folder, f"problem-{len(seen) + 1}")
            own = spec.name if spec.name and len(places) == 1 else names.get(place)
            if own:
                case = dataclasses.replace(case, name=own)
            if case.name in seen:
                raise CampaignError(
                    f"two problems are named {case.name!r}; give one of them another name "
                    "('name:' in its entry)"
                )
            seen.add(case.name)
            yield case, problem


def distinct_names(places: Sequence[str]) -> dict[str, str]:
    """Return names of files whose own names are the same, by their folders; others are left out.

    Parameters
    ----------
    places : sequence of str
        Absolute paths, such as those of the blocks of two runs.

    Returns
    -------
    dict of str to str
        Path → name of the first folder that differs, and the file's own name.
    """
    by_stem: dict[str, list[Path]] = {}
    for place in dict.fromkeys(places):
        if not place.startswith(_LIBRARY):
            by_stem.setdefault(Path(place).stem, []).append(Path(place))
    found = {}
    for stem, paths in by_stem.items():
        if len(paths) > 1:
            common = Path(os.path.commonpath([path.parent for path in paths]))
            for path in paths:
                folders = path.parent.relative_to(common).parts
                found[str(path)] = f"{folders[0]}-{stem}" if folders else stem
    return found


def _places(spec: ProblemSpec) -> list[str]:
    """Expand a set of the library, or a pattern of files."""
    if not spec.path:
        return [""]
    if spec.path.startswith(_LIBRARY):
        return [_LIBRARY + name for name in _library_names(spec.path.removeprefix(_LIBRARY))]
    path = Path(spec.path).expanduser()
    if path.is_dir() or any(sign in spec.path for sign in "*?["):
        endings = {ending for form in FORMATS.values() for ending in form.endings}
        pattern = path / "*" if path.is_dir() else path
        root = Path(pattern.anchor or ".")
        found = sorted(root.glob(str(pattern.relative_to(pattern.anchor))))
        files = [file for file in found if file.suffix.lower() in endings and file.is_file()]
        if not files:
            raise CampaignError(
                f"{spec.path} contains no problem files ({', '.join(sorted(endings))})"
            )
        return [str(file.resolve()) for file in files]
    try:
        return [str(regular(path).resolve())]
    except FileNotFoundError:
        raise CampaignError(
            f"there is no problem file {spec.path}; for the library: {_LIBRARY}NAME, or "
            f"{_LIBRARY}SET with one of {', '.join(_sets())}"
        ) from None


def _examined(
    spec: ProblemSpec, place: str, folder: Path, number: str
) -> tuple[Case, CardinalityQUBO]:
    known: dict[str, Any] = {}
    start = spec.start
    if spec.problem is not None:
        problem, name, start, known = _from_memory(spec, number)
        source = _written(problem, folder)
    elif place.startswith(_LIBRARY):
        name = place.removeprefix(_LIBRARY)
        entry = _library().load(name)
        problem, source = entry.problem, Source(place)
        start = entry.start if start is None else start
        known = _known(entry)
    else:
        source = Source(place, spec.format, spec.k, spec.free)
        instance = _instance(source)
        name, known = Path(place).stem, _known(instance)
        problem = _without_budget(instance.problem, name)
        if start is None:
            start = _beside(Path(place)) or instance.start
    given = {"family": spec.family or None, "best": spec.best, "proved": spec.proved or None}
    known |= {key: value for key, value in given.items() if value is not None}
    check_energies(problem)
    state = None if start is None else _state(start, problem, name)
    energy = mean_energy(problem) if state is None else problem.energy(state)
    best = known.get("best")
    return Case(
        name=name,
        source=source,
        hash=problem.hash,
        n=problem.n,
        k=problem.k,
        groups=problem.num_groups,
        family=known.get("family") or "",
        start="" if state is None else pack(state),
        start_energy=float(energy),
        start_kind="random mean" if state is None else "status quo",
        best=math.nan if best is None else float(best),
        proved=bool(known.get("proved")),
        magnitude=coefficient_sum(problem),
        offset=problem.offset,
    ), problem


def _without_budget(problem: CardinalityQUBO | BudgetQUBO, name: str) -> CardinalityQUBO:
    """Return a problem, or refuse it by its name if it has a budget."""
    if isinstance(problem, BudgetQUBO):
        raise CampaignError(
            f"problem {name!r} has a budget; comparisons take cardinalities, so solve it by "
            "solvers.solve or 'icbs solve'"
        )
    return problem


def _from_memory(
    spec: ProblemSpec, number: str
) -> tuple[CardinalityQUBO, str, Any, dict[str, Any]]:
    """Return problem, name, start and known values, of a problem or an entry of the library."""
    given, start, known = spec.problem, spec.start, {}
    name = spec.name or number
    if not isinstance(given, CardinalityQUBO) and isinstance(
        inner := getattr(given, "problem", None), CardinalityQUBO
    ):
        known = _known(given)
        start = getattr(given, "start", None) if start is None else start
        name = spec.name or getattr(given, "name", name)
        given = inner
    if not isinstance(given, CardinalityQUBO):
        raise CampaignError(
            f"problem {name!r} is a {type(given).__name__}; pass a problems.CardinalityQUBO, a "
            "path, or library:NAME"
        )
    return given, name, start, known


def _written(problem: CardinalityQUBO, folder: Path) -> Source:
    """Write a problem to a file for other processes, unless it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{problem.hash[:24]}.npz"
    if not path.exists():
        with atomic(path) as temporary:
            problem.save(temporary)
    return Source(str(path.resolve()))


def _instance(source: Source) -> Instance:
    """Read a file; an ``.npz`` may also have a start and a solution."""
    if format_name(source.place, source.format) == "npz" and source.k is None and not source.free:
        return Instance.load(source.place)
    return Instance(source.load())


def _beside(path: Path) -> Path | None:
    """Return the file that holds a problem's status quo: NAME.x0.npy next to NAME.npz."""
    start = path.with_suffix(".x0.npy")
    return start if start.is_file() else None


def _state(given: Any, problem: CardinalityQUBO, name: str) -> State:
    """Read and check a status quo."""
    try:
        if isinstance(given, str | Path):
            # Mapped, so that the claimed size is compared with the file's before memory is
            # allocated.
            given = np.array(np.load(regular(given), mmap_mode="r", allow_pickle=False))
        return checked_state(problem, given, "the state")
    except (InvalidProblemError, FormatError, OSError, ValueError) as error:
        raise CampaignError(f"the start of problem {name!r} can't be used: {error}") from error


# -- the library ----------------------------------------------------------------------------


#: Sets other than those of each model.
_COLLECTIONS = ("small", "large", "all")


def _library() -> Any:
    from problems import library

    return library


def _known(entry: Any) -> dict[str, Any]:
    """Return family, best energy and proof of an entry of the library."""
    return {
        "family": getattr(entry, "family", None),
        "best": getattr(entry, "best_energy", None),
        "proved": getattr(entry, "proved", None),
    }


def _sets() -> list[str]:
    return [*_COLLECTIONS, *sorted({row["model"] for row in _library().table()})]


def _library_names(wanted: str) -> list[str]:
    """Return the names of a set, of a model, or of those that match a pattern."""
    library, sets = _library(), _sets()
    every: list[str] = library.names()
    if wanted in _COLLECTIONS:
        found: list[str] = library.names(collection=wanted)
    elif wanted in sets:
        found = library.names(model=wanted)
    else:
        found = fnmatch.filter(every, wanted)
    if not found:
        from problems.library.catalogue import LISTED, SUGGESTED

        near = did_you_mean(wanted, [*sets, *every], SUGGESTED)
        raise CampaignError(
            f"the library has no problem or set {wanted!r}{near}; sets: {', '.join(sets)}; "
            f"{LISTED} lists all {len(every)} problems"
        )
    return found
