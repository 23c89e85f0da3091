"""Swap tabu search on a dense matrix: the compiled heart of :class:`solvers.anneal.Anneal`.

Variables are split into *segments*, short runs of one group. One pass over a field vector
applies a swap (two rows of ``Q``) and leaves, for each segment, the best variable that may
leave and the best that may enter; the next swap is the best pair among the best few
segments of either side, judged exactly, coupling included.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: No NaN or signed zero ever arises; infinities do (empty segments), so not "ninf".
_FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}
jit = numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")

#: Candidates kept on each side: with one group, and within each of several groups.
WIDTH, GROUP_WIDTH, GROUPS = 16, 4, 16
#: Length of the ring of tabu expiries; tenures stay below it.
RING = 64

# Slots of the integer state of a search.
RNG, STEP, STALL, HASH, BEST_HASH = range(5)
# Slots of its float64 state: energies relative to the start.
ENERGY, BEST = range(2)


@jit
def draw(state: Array, bound: int) -> int:
    """Draw an integer in [0, bound) with xorshift64."""
    r = np.uint64(state[RNG])
    r ^= r << np.uint64(13)
    r ^= r >> np.uint64(7)
    r ^= r << np.uint64(17)
    state[RNG] = np.int64(r)
    return int((r >> np.uint64(33)) % np.uint64(bound))


@jit
def key(v: int) -> int:
    """Mix a variable's number into 64 bits (splitmix64), to hash states by."""
    z = np.uint64(v + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.int64(z ^ (z >> np.uint64(31))))


@jit
def refresh(Q: Array, x: Array, f: Array) -> None:
    """Recompute the fields ``f_i = Q_ii + 2 Σ_{j≠i} Q_ij x_j`` of a state."""
    n = len(x)
    for v in range(n):
        f[v] = Q[v, v]
    for u in range(n):
        if x[u]:
            row = Q[u]
            keep = f[u]
            for v in range(n):
                f[v] += row[v] + row[v]
            f[u] = keep


@jit
def scan(f: Array, side: Array, starts: Array, lo: Array, hi: Array, first: int, last: int) -> None:
    """Find the best variable to enter (lo) and to leave (hi) in each of a run of segments.

    ``side`` is +1 for a free zero, -1 for a free one, 0 for a tabu variable.
    """
    none = f.dtype.type(np.inf)
    for s in range(first, last):
        a, b = none, -none
        for v in range(starts[s], starts[s + 1]):
            enter = f[v] if side[v] > 0 else none
            leave = f[v] if side[v] < 0 else -none
            a = min(a, enter)
            b = max(b, leave)
        lo[s], hi[s] = a, b


@jit
def swap(
    Q: Array, f: Array, side: Array, starts: Array, lo: Array, hi: Array, i: int, j: int
) -> None:
    """Update the fields for ``i`` leaving and ``j`` entering, scanning on the way."""
    out, into = Q[i], Q[j]
    none = f.dtype.type(np.inf)
    f_i, f_j = f[i], f[j]
    for s in range(len(lo)):
        a, b = none, -none
        for v in range(starts[s], starts[s + 1]):
            step = into[v] - out[v]
            value = f[v] + (step + step)
            f[v] = value
            enter = value if side[v] > 0 else none
            leave = value if side[v] < 0 else -none
            a = min(a, enter)
            b = max(b, leave)
        lo[s], hi[s] = a, b
    # Both are tabu now, so that the scan above never looked at these two.
    f[i] = f_i + 2 * into[i]
    f[j] = f_j - 2 * out[j]


@jit
def _smallest(values: Array, sign: float, first: int, last: int, width: int, picked: Array) -> int:
    """Put the positions of the smallest finite ``sign * values`` into picked, best first."""
    count = 0
    for s in range(first, last):
        value = sign * values[s]
        if value == np.inf:
            continue
        if count == width and value >= sign * values[picked[width - 1]]:
            continue
        if count < width:
            count += 1
        p = count - 1
        while p > 0 and sign * values[picked[p - 1]] > value:
            picked[p] = picked[p - 1]
            p -= 1
        picked[p] = s
    return count


@jit
def _where(f: Array, side: Array, wanted: int, value: float, first: int, last: int) -> int:
    for v in range(first, last):
        if f[v] == value and side[v] == wanted:
            return v
    return -1


@jit
def best_pair(
    Q: Array,
    f: Array,
    side: Array,
    starts: Array,
    lo: Array,
    hi: Array,
    first: int,
    last: int,
    width: int,
    limit: float,
    pick: Array,
    pair: Array,
) -> float:
    """Judge the best candidates among segments first … last; keep a pair below ``limit``."""
    leaving = _smallest(hi, -1.0, first, last, width, pick[0])
    entering = _smallest(lo, 1.0, first, last, width, pick[1])
    for b in range(entering):
        s = pick[1, b]
        pick[2, b] = _where(f, side, 1, lo[s], starts[s], starts[s + 1])
    best = limit
    for a in range(leaving):
        s = pick[0, a]
        i = _where(f, side, -1, hi[s], starts[s], starts[s + 1])
        row = Q[i]
        for b in range(entering):
            j = pick[2, b]
            change = f[j] - f[i] - 2 * row[j]
            if change < best:
                best = change
                pair[0], pair[1] = i, j
    return best


@jit
def tabu(
    Q: Array,
    x: Array,
    f: Array,
    best_x: Array,
    side: Array,
    starts: Array,
    group_starts: Array,
    ring: Array,
    chain: Array,
    ints: Array,
    floats: Array,
    tenure: int,
    steps: int,
    patience: int,
) -> int:
    """Make up to ``steps`` swaps, each the best allowed one; resumable.

    Parameters
    ----------
    Q : (n, n) array
        Symmetric matrix, diagonal = linear terms.
    x, best_x : (n,) uint8
        Current state and the best one met.
    f : (n,) array
        Fields of ``x``.
    side : (n,) float32
        +1 for a free zero, -1 for a free one, 0 for a tabu variable.
    starts : (segments + 1,) int64
        First variable of each segment.
    group_starts : (groups + 1,) int64
        First segment of each group.
    ring, chain : int64
        Tabu variables by expiry: ring[step % RING] heads a list linked through chain.
    ints, floats
        State: random numbers, step, steps since the best, hashes of the current and the
        best state relative to the first; energy and best energy.
    tenure : int
        A moved variable stays tabu for tenure … 2·tenure - 1 steps.
    steps, patience : int
        Swaps to make; steps without a new best after which to stop.

    Returns
    -------
    int
        Swaps made; fewer than asked once patience is out or nothing can move.
    """
    segments, groups = len(starts) - 1, len(group_starts) - 1
    lo = np.empty(segments, f.dtype)
    hi = np.empty(segments, f.dtype)
    pick = np.empty((3, WIDTH), np.int64)
    pair = np.empty(2, np.int64)
    promise = np.empty(groups, f.dtype)
    chosen = np.empty(GROUPS, np.int64)
    scan(f, side, starts, lo, hi, 0, segments)
    for made in range(steps):
        if ints[STALL] >= patience:
            return made
        if groups == 1:
            change = best_pair(Q, f, side, starts, lo, hi, 0, segments, WIDTH, np.inf, pick, pair)
        else:
            for g in range(groups):
                a, b = lo[group_starts[g]], hi[group_starts[g]]
                for s in range(group_starts[g] + 1, group_starts[g + 1]):
                    a, b = min(a, lo[s]), max(b, hi[s])
                promise[g] = a - b
            change = np.inf
            for c in range(_smallest(promise, 1.0, 0, groups, GROUPS, chosen)):
                first, last = group_starts[chosen[c]], group_starts[chosen[c] + 1]
                change = best_pair(
                    Q, f, side, starts, lo, hi, first, last, GROUP_WIDTH, change, pick, pair
                )
        step = ints[STEP] + 1
        ints[STEP] = step
        # Release what expires now (its segment is seen free by the next pass).
        v = ring[step % RING]
        ring[step % RING] = -1
        while v >= 0:
            side[v] = -1 if x[v] else 1
            v = chain[v]
        if change == np.inf:
            # All that could move is tabu: wait for releases.
            ints[STALL] += 1
            scan(f, side, starts, lo, hi, 0, segments)
            continue
        i, j = pair[0], pair[1]
        x[i], x[j] = 0, 1
        for v in (i, j):
            side[v] = 0
            slot = (step + tenure + draw(ints, tenure)) % RING
            chain[v] = ring[slot]
            ring[slot] = v
        swap(Q, f, side, starts, lo, hi, i, j)
        floats[ENERGY] += change
        ints[HASH] ^= key(i) ^ key(j)
        if ints[HASH] == ints[BEST_HASH]:
            # Back at the best state: what differs is rounding.
            floats[ENERGY] = floats[BEST]
        if floats[ENERGY] < floats[BEST]:
            floats[BEST] = floats[ENERGY]
            ints[BEST_HASH] = ints[HASH]
            best_x[:] = x
            ints[STALL] = 0
        else:
            ints[STALL] += 1
    return steps


@jit
def descend(Q: Array, x: Array, f: Array, group_of: Array) -> float:
    """Swap down to a state that no single swap improves; returns the change of energy.

    Every pair is looked at: for each one, the best partner of its group in one pass.
    """
    n = len(x)
    total = 0.0
    scale = f.dtype.type(0)
    for v in range(n):
        scale = max(scale, abs(f[v]))
    tolerance = scale * f.dtype.type(1e-6)
    none = f.dtype.type(np.inf)
    quiet = 0
    visits = 0
    i = 0
    # Rounding could let swaps go round in a circle: the number of visits is bounded.
    while quiet < n and visits < 100 * n:
        visits += 1
        if x[i]:
            row, f_i, g = Q[i], f[i], group_of[i]
            best = none
            for v in range(n):
                value = f[v] - (row[v] + row[v]) if x[v] == 0 and group_of[v] == g else none
                best = min(best, value)
            if best - f_i < -tolerance:
                j = -1
                best = none
                for v in range(n):
                    if x[v] == 0 and group_of[v] == g and f[v] - (row[v] + row[v]) < best:
                        best = f[v] - (row[v] + row[v])
                        j = v
                total += best - f_i
                into = Q[j]
                f_j = f[j]
                for v in range(n):
                    step = into[v] - row[v]
                    f[v] += step + step
                f[i] = f_i + 2 * into[i]
                f[j] = f_j - 2 * row[j]
                x[i], x[j] = 0, 1
                quiet = 0
        quiet += 1
        i = i + 1 if i + 1 < n else 0
    return total
