"""Descriptions of hardware: gate-based processors, annealers and fault-tolerant machines.

A target is a small YAML file (:mod:`solvers.readiness.target_files`): figures, and for each of them
the source and the date.

All times are in seconds, all errors are probabilities per operation.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from problems.suggest import did_you_mean

#: A probability of an error. Above one half, no repetition helps: such a figure is a mistake.
Error = Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)]
#: A duration in seconds; longer than an hour is a mistake of units.
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
#: A duration in seconds that may be zero.
Delay = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Range = tuple[float, float]

#: Source of a figure that is not published.
ASSUMPTION = "assumption"


class Source(BaseModel):
    """Origin of some figures of a target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the fields."""
    source: Annotated[str, Field(min_length=3)]
    """Publication, data sheet or data file; a text that begins with "assumption" for a figure
    without one."""
    date: datetime.date
    """Day of the measurement or of the publication."""

    @property
    def assumed(self) -> bool:
        """Whether the figures are assumed, not published."""
        return self.source.casefold().startswith(ASSUMPTION)


class _Described(BaseModel):
    """Fields of all targets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Fields other than figures.
    plain: ClassVar[frozenset[str]] = frozenset({"name", "kind", "description", "sources"})

    name: Annotated[str, Field(min_length=1, max_length=60)]
    description: str = ""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Origin of each figure, with its date."""

    @model_validator(mode="after")
    def _sourced(self) -> _Described:
        """Require one source for each figure."""
        figures = set(type(self).model_fields) - self.plain
        given = [name for source in self.sources for name in source.figures]
        for name in given:
            if name not in figures:
                near = did_you_mean(name, figures)
                raise ValueError(f"sources name the figure {name!r}, which is not a field{near}")
            if given.count(name) > 1:
                raise ValueError(f"sources name the figure {name!r} twice; keep one of them")
        missing = [name for name in sorted(figures & self.model_fields_set) if name not in given]
        if missing:
            raise ValueError(
                f"{missing[0]} has no source; list it in an entry of 'sources', with a date "
                f"('source: {ASSUMPTION}' if it is not published)"
            )
        return self

    def source_of(self, figure: str) -> Source:
        """Return the source of a figure.

        Raises
        ------
        KeyError
            If the figure is not given.
        """
        for source in self.sources:
            if figure in source.figures:
                return source
        raise KeyError(figure)


class GateTarget(_Described):
    """A processor that runs circuits, without error correction."""

    kind: Literal["gate"]
    topology: Literal["heavy-hex", "grid", "all-to-all", "explicit"]
    rows: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Rows of qubits, of the heavy-hex lattice (without the qubits between rows) and the grid."""
    columns: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Qubits in a row, of the heavy-hex lattice and the grid."""
    couplings: tuple[tuple[int, int], ...] | None = None
    """Coupled pairs of qubits, of the explicit topology."""
    qubits: Annotated[int, Field(ge=2, le=1_000_000)]
    basis_gates: tuple[str, ...]
    """Qiskit's names of the native gates; one of them couples two qubits."""
    one_qubit_error: Error
    two_qubit_error: Error
    readout_error: Error
    one_qubit_time: Seconds
    two_qubit_time: Seconds
    readout_time: Seconds
    t1: Seconds
    """Relaxation time."""
    t2: Seconds
    """Dephasing time; at most twice ``t1``."""

    @model_validator(mode="after")
    def _possible(self) -> GateTarget:
        if self.t2 > 2 * self.t1:
            raise ValueError(f"t2 is {self.t2:g} s; it can't exceed twice t1, {2 * self.t1:g} s")
        known = ONE_QUBIT_GATES | TWO_QUBIT_GATES
        for name in self.basis_gates:
            if name not in known:
                raise ValueError(
                    f"basis_gates contain {name!r}{did_you_mean(name, known)}; known: "
                    f"{', '.join(sorted(known))}"
                )
        if not any(gates <= set(self.basis_gates) for gates in UNIVERSAL):
            raise ValueError(
                f"basis_gates are {', '.join(self.basis_gates)}; for any rotation of a qubit "
                f"{', or '.join(' and '.join(sorted(gates)) for gates in UNIVERSAL)} are needed"
            )
        if not set(self.basis_gates) & TWO_QUBIT_GATES:
            raise ValueError(
                f"basis_gates are {', '.join(self.basis_gates)}; one of "
                f"{', '.join(sorted(TWO_QUBIT_GATES))} must be among them"
            )
        lattice = self.topology in ("heavy-hex", "grid")
        for name in ("rows", "columns"):
            if (getattr(self, name) is not None) != lattice:
                what = "needed" if lattice else "not used"
                raise ValueError(f"{name} is {what} with the topology {self.topology}")
        if (self.couplings is not None) != (self.topology == "explicit"):
            what = "needed" if self.topology == "explicit" else "not used"
            raise ValueError(f"couplings is {what} with the topology {self.topology}")
        if self.topology == "heavy-hex" and (self.columns or 0) % 4:
            raise ValueError(
                f"columns is {self.columns}; rows of the heavy-hex lattice have a multiple of 4"
            )
        if lattice and self.qubits != (expected := lattice_size(self)):
            raise ValueError(
                f"qubits is {self.qubits}; {self.rows} rows of {self.columns} give {expected}"
            )
        for a, b in self.couplings or ():
            if a == b or not (0 <= a < self.qubits and 0 <= b < self.qubits):
                raise ValueError(
                    f"couplings contain ({a}, {b}); pairs of two qubits 0 … {self.qubits - 1} are "
                    "needed"
                )
        if self.couplings is not None and not _connected(self.qubits, self.couplings):
            raise ValueError("couplings do not connect all qubits; add some, or leave qubits out")
        return self


class AnnealerTarget(_Described):
    """A quantum annealer."""

    kind: Literal["annealer"]
    topology: Literal["pegasus", "zephyr"]
    m: Annotated[int, Field(ge=2, le=100)]
    """Grid parameter of the topology."""
    t: Annotated[int, Field(ge=1, le=16)] | None = None
    """Tile parameter, of Zephyr."""
    faulty_qubits: Annotated[float, Field(ge=0, lt=0.5)]
    """Share of the qubits of the graph that do not work."""
    faulty_couplers: Annotated[float, Field(ge=0, lt=0.5)]
    """Share of the couplers between working qubits that do not work."""
    anneal_time: Seconds
    readout_time: Seconds
    delay_time: Delay
    """Pause between two anneals."""
    programming_time: Seconds
    """Once per problem."""
    h_range: Range
    """Lowest and highest linear term."""
    j_range: Range
    """Lowest and highest coupling."""
    bits: Annotated[float, Field(ge=1, le=64)]
    """Effective precision of linear terms and couplings."""

    @model_validator(mode="after")
    def _possible(self) -> AnnealerTarget:
        for name in ("h_range", "j_range"):
            low, high = getattr(self, name)
            if not (-1000 <= low < 0 < high <= 1000):
                raise ValueError(f"{name} is [{low:g}, {high:g}]; it must contain 0 inside")
        if (self.t is not None) != (self.topology == "zephyr"):
            what = "needed" if self.topology == "zephyr" else "not used"
            raise ValueError(f"t is {what} with the topology {self.topology}")
        return self


class FaultTolerantTarget(_Described):
    """Physical qubits, and the scheme that protects logical ones."""

    kind: Literal["fault-tolerant"]
    technology: Literal["superconducting", "neutral-atom", "trapped-ion"]
    scheme: Literal["surface-code"]
    one_qubit_time: Seconds
    two_qubit_time: Seconds
    measurement_time: Seconds
    one_qubit_error: Error
    two_qubit_error: Error
    measurement_error: Error
    t_error: Error
    """Error of a physical T gate, before distillation."""
    error_budget: Annotated[float, Field(gt=0, lt=1)]
    """Allowed probability that a run fails."""


Target = GateTarget | AnnealerTarget | FaultTolerantTarget
KINDS: dict[str, type[Target]] = {
    "gate": GateTarget,
    "annealer": AnnealerTarget,
    "fault-tolerant": FaultTolerantTarget,
}
#: Names of native gates on one qubit, as Qiskit spells them.
ONE_QUBIT_GATES = frozenset(
    (
        "h",
        "id",
        "p",
        "r",
        "rx",
        "ry",
        "rz",
        "s",
        "sdg",
        "sx",
        "sxdg",
        "t",
        "tdg",
        "u",
        "x",
        "y",
        "z",
    )
)
#: Sets of gates that give any rotation of a qubit.
UNIVERSAL = tuple(
    frozenset(gates) for gates in (("u",), ("rz", "sx"), ("rx", "rz"), ("rx", "ry"), ("ry", "rz"))
)
#: Names of native gates on two qubits.
TWO_QUBIT_GATES = frozenset({"cx", "cz", "ecr", "rzz", "iswap", "rxx"})


def lattice_size(target: GateTarget) -> int:
    """Return the number of qubits of a heavy-hex lattice or grid."""
    rows, columns = target.rows or 0, target.columns or 0
    between = (rows - 1) * columns // 4 if target.topology == "heavy-hex" else 0
    return rows * columns + between


def _connected(qubits: int, couplings: Iterable[tuple[int, int]]) -> bool:
    root = list(range(qubits))

    def find(a: int) -> int:
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        return a

    for a, b in couplings:
        root[find(a)] = find(b)
    return len({find(a) for a in range(qubits)}) == 1
