"""Coupled qubits of gate-based processors, and lines of qubits in them."""

from __future__ import annotations

from solvers.readiness.target import GateTarget

Edge = tuple[int, int]


def edges(target: GateTarget, qubits: int | None = None) -> list[Edge]:
    """Return the coupled pairs of qubits.

    Parameters
    ----------
    target : GateTarget
    qubits : int, optional
        Number of qubits of an all-to-all processor that are used; all when omitted.
    """
    if target.topology == "heavy-hex":
        return _heavy_hex(target.rows or 0, target.columns or 0)
    if target.topology == "grid":
        return _grid(target.rows or 0, target.columns or 0)
    if target.topology == "explicit":
        return [(a, b) for a, b in target.couplings or ()]
    count = qubits or target.qubits
    return [(a, b) for b in range(count) for a in range(b)]


def line(target: GateTarget) -> list[int]:
    """Return qubits in a line, each coupled to the next: a long one, not always the longest.

    Empty for explicit couplings, where none is searched.
    """
    rows, columns = target.rows or 0, target.columns or 0
    if target.topology == "all-to-all":
        return list(range(target.qubits))
    if target.topology == "grid":
        return [
            row * columns + (at if row % 2 == 0 else columns - 1 - at)
            for row in range(rows)
            for at in range(columns)
        ]
    if target.topology == "explicit":
        return []
    found: list[int] = []
    for row in range(rows):
        base, forward = _base(row, columns), row % 2 == 0
        # Rows are entered and left at their last bridge, except at both ends of the line.
        first = 1 if row and forward else 0
        last = 1 if row < rows - 1 and not forward else 0
        along = range(first, columns) if forward else range(columns - 1, last - 1, -1)
        found += [base + at for at in along]
        if row < rows - 1:
            found.append(base + columns + (columns // 4 - 1 if forward else 0))
    return found


def _heavy_hex(rows: int, columns: int) -> list[Edge]:
    """Rows of qubits, with a bridge of one qubit at every fourth, as in IBM's Heron."""
    found = []
    for row in range(rows):
        base = _base(row, columns)
        found += [(base + at, base + at + 1) for at in range(columns - 1)]
        if row < rows - 1:
            for number, at in enumerate(range(3 if row % 2 == 0 else 1, columns, 4)):
                bridge = base + columns + number
                found += [(base + at, bridge), (bridge, _base(row + 1, columns) + at)]
    return found


def _grid(rows: int, columns: int) -> list[Edge]:
    at = [(row, column) for row in range(rows) for column in range(columns)]
    right = [(r * columns + c, r * columns + c + 1) for r, c in at if c + 1 < columns]
    down = [(r * columns + c, (r + 1) * columns + c) for r, c in at if r + 1 < rows]
    return right + down


def _base(row: int, columns: int) -> int:
    """Return the first qubit of a row of the heavy-hex lattice."""
    return row * (columns + columns // 4)
