"""Catalogue of the library: names, records, problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from problems.errors import FormatError, InvalidProblemError, UnknownProblemError
from problems.library.recipe import read_recipe, rebuild, start_of
from problems.packing import pack, unpack
from problems.qubo import CardinalityQUBO
from problems.suggest import did_you_mean

DATA = Path(__file__).with_name("data")
INDEX = DATA / "index.json"
BEST = DATA / "best.json"

#: Largest n of the small collection.
SMALL = 256
#: Largest number of names that a message on an unknown one suggests, and the command that has all.
SUGGESTED, LISTED = 5, "'python -m problems.library table'"

Collection = Literal["small", "large", "all"]
State = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LibraryProblem:
    """A problem of the library with its record.

    Energies are changes of the mean loss in nats that the quadratic model predicts, the status
    quo being 0; of a ``gram`` problem, changes of the layer's output error.
    """

    name: str
    problem: CardinalityQUBO
    start: State
    """Status quo, shape (n,), 1 = pruned: the unchanged mask, which is feasible."""
    start_energy: float
    """0, exactly."""
    best: State
    """Feasible state of the lowest energy known, shape (n,)."""
    best_energy: float
    bound: float | None
    """Lower bound on every feasible energy, or None."""
    proved: bool
    """Whether :attr:`best_energy` is proved to be optimal: it equals :attr:`bound`, up to 1e-9
    of the sum of the coefficients' magnitudes, which a branch and bound grants to rounding."""
    model: str
    layer: str
    """The layer's name in the model."""
    depth: float
    """Relative position among the model's prunable layers, 0 (first) to 1 (last)."""
    stage: str
    """``"early"``: at the initial mask; ``"late"``: after passes of pruning."""
    curvature: str
    """``"fisher"``, ``"gram"`` (error of the layer's output) or ``"fisher+gram"``."""
    constraint: str
    """Cardinality groups: ``"layer"`` (one group), ``"output"`` or ``"2:4"``."""
    origin: Mapping[str, Any]
    """Origin: task, options, settings, passes, seed, versions, sources."""
    hash: str
    """SHA-256 of the problem's content: :attr:`problems.CardinalityQUBO.hash`."""

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.problem.n

    @property
    def k(self) -> int:
        """Number of ones of a feasible state."""
        return self.problem.k

    @property
    def family(self) -> str:
        """Name of the model; groups problems in tables of results."""
        return self.model

    @property
    def collection(self) -> str:
        """``"small"`` up to n = 256, else ``"large"``."""
        return collection_of(self.n)

    def gap(self, energy: float) -> float:
        """Gap of an energy: 0 at the best value known, 1 at the status quo.

        If the status quo is the best state known, 0 for it and infinite above.
        """
        span = self.start_energy - self.best_energy
        if span == 0:
            return 0.0 if energy <= self.best_energy else float("inf")
        return (energy - self.best_energy) / span


def names(
    *,
    model: str | None = None,
    family: str | None = None,
    stage: str | None = None,
    curvature: str | None = None,
    constraint: str | None = None,
    max_n: int | None = None,
    collection: Collection = "all",
) -> list[str]:
    """Return the names of problems, by model and size.

    Parameters
    ----------
    model, family : str, optional
        Only of this model; both names have the same meaning.
    stage, curvature, constraint : str, optional
        As in :class:`LibraryProblem`.
    max_n : int, optional
        Largest number of variables.
    collection : {"small", "large", "all"}
        Problems up to n = 256, the larger ones, or all.

    Raises
    ------
    InvalidProblemError
        If no problem has a given value.
    """
    if collection not in get_args(Collection):
        raise InvalidProblemError(
            f"collection is {collection!r}; it must be one of {', '.join(get_args(Collection))}"
        )
    records = index()["problems"]
    wanted = {
        "model": model,
        "family": family,
        "stage": stage,
        "curvature": curvature,
        "constraint": constraint,
    }
    for field, value in wanted.items():
        key = "model" if field == "family" else field
        known = sorted({record[key] for record in records.values()})
        if value is not None and value not in known:
            near = did_you_mean(value, known)
            raise InvalidProblemError(
                f"{field} is {value!r}{near}; values in the library: {', '.join(known)}"
            )
        records = {
            name: record
            for name, record in records.items()
            if value is None or record[key] == value
        }
    return [
        name
        for name, record in records.items()
        if (max_n is None or record["n"] <= max_n)
        and collection in ("all", collection_of(record["n"]))
    ]


def load(name: str) -> LibraryProblem:
    """Rebuild a problem of the library.

    Raises
    ------
    UnknownProblemError
        If there is no problem of this name; the message lists them.
    FormatError
        If the package's data are damaged: the hash differs.

    Examples
    --------
    >>> load("garment-2-1024-early").problem
    CardinalityQUBO(n=1024, k=512, rank≤512, float32)
    """
    record = record_of(name)
    recipe = read_recipe(DATA / f"{name}.npz")
    problem, start = rebuild(recipe), start_of(recipe)
    if problem.hash != record["hash"]:
        raise FormatError(
            f"{name} does not have the recorded hash: {DATA} is damaged; install the package again"
        )
    known = best_values().get(name, {"energy": 0.0, "state": pack(start)})
    return LibraryProblem(
        name=name,
        problem=problem,
        start=start,
        start_energy=float(problem.energy(start)),
        best=unpack(known["state"], problem.n),
        best_energy=known["energy"],
        bound=known.get("bound"),
        proved=known.get("proved", False),
        origin=index()["runs"][record["run"]] | record["look"],
        **{field: record[field] for field in _RECORDED},
    )


_RECORDED = ("model", "layer", "depth", "stage", "curvature", "constraint", "hash")


def table() -> list[dict[str, Any]]:
    """Return a record of each problem, for a table or a data frame, without rebuilding problems.

    Its fields are those of :class:`LibraryProblem` without the arrays, and ``n``, ``k``, ``groups``
    (their number), ``rank`` (rows of the factor, None of a dense problem), ``collection``,
    ``by`` (how the best value was found), and of rounding to integers: ``bits`` (of the factor's
    largest entry), ``unit_exponent`` (energies are multiples of 2 to this power), ``spearman``
    and ``deviation`` (of the energies of random states), ``deviation_at_best`` (largest change
    of the energies of the best states, over the best energy's magnitude).
    """
    best = best_values()
    rows = []
    for name, record in index()["problems"].items():
        known = best.get(name, {})
        rows.append(
            {"name": name}
            | {key: value for key, value in record.items() if key not in ("run", "look")}
            | {"collection": collection_of(record["n"])}
            | {key: known.get(key) for key in ("energy", "bound", "proved", "by")}
        )
    return rows


@cache
def index() -> dict[str, Any]:
    """Read the constant data: runs, and a record of each problem."""
    return _read(INDEX)


def best_values(path: Path = BEST) -> dict[str, dict[str, Any]]:
    """Read the best value, state and bound of each problem."""
    return _read(path)


def record_of(name: str) -> dict[str, Any]:
    """Return the index's record of a problem.

    Raises
    ------
    UnknownProblemError
        If there is no problem of this name.
    """
    records: dict[str, dict[str, Any]] = index()["problems"]
    if name not in records:
        raise UnknownProblemError(
            f"the library has no problem {name!r}{did_you_mean(name, records, SUGGESTED)}; "
            f"{LISTED} lists all {len(records)}"
        )
    return records[name]


def collection_of(n: int) -> str:
    """Return the collection of a problem of n variables."""
    return "small" if n <= SMALL else "large"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} is damaged ({error}); install the package again") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} is damaged; install the package again")
    return content
