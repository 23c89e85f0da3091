"""Triton kernel of the tabu search: swaps of one program with fields and tags in registers.

Arithmetic is that of the matrix (float32 or float64), energies are float64. Ties are broken by
the lowest slot. Random numbers are hashes of the program's seed and the step, so that a run does
not depend on its division into launches.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (Triton interprets annotations itself.)

from __future__ import annotations

import triton
import triton.language as tl

from solvers.gpu.kernels import matrix_row, open_matrix

#: Slots of a program's integer state, int32. STEP counts swaps tried; STALL those since the best
#: of this round (negative while kicking), SINCE those since the best of all; KICK remaining
#: random swaps; DIRTY marks that the current state is the best and not saved yet.
STEP, STALL, SINCE, KICK, DIRTY, INTS = (tl.constexpr(i) for i in range(6))
#: Slots of its float64 state: current and best energy relative to the start, and the largest
#: rounding error of the current one.
ENERGY, BEST, SLACK, FLOATS = (tl.constexpr(i) for i in range(4))
#: Random numbers of one step: the first slot considered by a kick, the tenures of the first and
#: second variable, and the length of a kick.
START_DRAW, FIRST_DRAW, SECOND_DRAW, KICK_DRAW, DRAWS = (tl.constexpr(i) for i in range(5))


@triton.jit
def draw(seed, step, which: tl.constexpr, bound):
    """Hash a seed, a step and one of its draws (MurmurHash3's finaliser) to [0, bound)."""
    count = step * DRAWS + which
    z = seed.to(tl.uint32) + count.to(tl.uint32) * 0x9E3779B9
    z = (z ^ (z >> 16)) * 0x85EBCA6B
    z = (z ^ (z >> 13)) * 0xC2B2AE35
    z = z ^ (z >> 16)
    return (z >> 1).to(tl.int32) % bound


@triton.jit
def _least_of_run(group_a, a, group_b, b):
    return group_b, tl.where(group_a == group_b, tl.minimum(a, b), b)


@triton.jit
def least_of_group(values, groups):
    """Return the smallest value of each slot's group; slots are sorted by group."""
    _, before = tl.associative_scan((groups, values), 0, _least_of_run)
    _, after = tl.associative_scan((groups, values), 0, _least_of_run, reverse=True)
    return tl.minimum(before, after)


# Numbers that change between launches must not cause recompilation.
@triton.jit(do_not_specialize=["steps", "patience", "tenure", "stall_limit", "kick_size"])
def tabu(
    matrices,
    sizes,
    seeds,
    groups,
    f_state,
    tag_state,
    best_f,
    best_tag,
    ints,
    floats,
    steps,
    patience,
    tenure,
    stall_limit,
    kick_size,
    EPSILON: tl.constexpr,
    N: tl.constexpr,
    GROUPED: tl.constexpr,
    EVEN: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Make up to ``steps`` swaps of every program; can be resumed. See :mod:`solvers.gpu`.

    ``matrices`` (P,) int64 addresses, ``sizes`` (P,) int32, ``seeds`` (P,) int32,
    ``groups`` (P, N) int32 (read if GROUPED), ``f_state`` and ``best_f`` (P, N),
    ``tag_state`` and ``best_tag`` (P, N) int32, ``ints`` (P, INTS), ``floats``
    (P, FLOATS). A program stops early once SINCE reaches ``patience``.
    """
    program = tl.program_id(0)
    real = f_state.dtype.element_ty
    v = tl.arange(0, N)
    at = program.to(tl.int64) * N + v
    matrix, n = open_matrix(matrices, sizes, program, real, ALIGNED)
    seed = tl.load(seeds + program)
    ints += program * INTS
    floats += program * FLOATS
    step = tl.load(ints + STEP)
    stall = tl.load(ints + STALL)
    since = tl.load(ints + SINCE)
    kick = tl.load(ints + KICK)
    dirty = tl.load(ints + DIRTY)
    energy = tl.load(floats + ENERGY)
    best = tl.load(floats + BEST)
    slack = tl.load(floats + SLACK)
    f = tl.load(f_state + at)
    tag = tl.load(tag_state + at)
    none = float("-inf")

    last = step + steps
    while (step < last) & (since < patience):
        step += 1
        # One side chooses its best variable p, the other the best partner q for it; the sides
        # alternate. With sign = +1, p leaves (x: 1 → 0) and q enters.
        leave = step & 1
        sign = (2 * leave - 1).to(real)
        free = tag <= 2 * step + 1
        first = free & ((tag & 1) == leave)
        second = free & ((tag & 1) != leave)
        score = tl.where(first, sign * f, none)
        if GROUPED:
            label = tl.load(groups + at)
            rival = least_of_group(tl.where(second, sign * f, -none), label)
            first = first & (rival < -none)
            score = tl.where(first, sign * f - rival, none)
        if kick > 0:
            # A random p: the first eligible slot at or after a random one.
            start = draw(seed, step, START_DRAW, N)
            turn = tl.min(tl.where(first, (v - start) & (N - 1), N), 0)
            found = turn < N
            p = (turn + start) & (N - 1)
            own = tl.sum(tl.where(v == p, sign * f, 0.0), 0)
        else:
            top = tl.max(score, 0)
            found = top > none
            p = tl.min(tl.where(score == top, v, N - 1), 0)
            own = top
            if GROUPED:
                own = tl.sum(tl.where(v == p, sign * f, 0.0), 0)
        if GROUPED:
            second = second & (label == tl.load(groups + program.to(tl.int64) * N + p))

        # Flip p; the fields then include its couplings, and the best partner has the best field.
        p = tl.minimum(p, n - 1)  # stays within the matrix, also if no variable was found
        twice = tl.where(found, 2 * sign, 0 * sign)
        f = f - twice * matrix_row(matrix, p, n, v, EVEN, ALIGNED)
        reward = tl.where(second, -sign * f, none)
        gain = tl.max(reward, 0)
        q = tl.min(tl.where(reward == gain, v, N - 1), 0)
        change = -(own + gain)
        moved = found & (gain > none)
        if (dirty > 0) & ((change >= 0) | (moved == 0)):
            # Save the best state before leaving it.
            before = f + twice * matrix_row(matrix, p, n, v, EVEN, ALIGNED)
            tl.store(best_f + at, before)
            tl.store(best_tag + at, tag)
            dirty = 0
        # Flip q, or p back if there is no partner.
        q = tl.where(moved, tl.minimum(q, n - 1), p)
        f = f + twice * matrix_row(matrix, q, n, v, EVEN, ALIGNED)
        if moved:
            release = step + tenure + draw(seed, step, FIRST_DRAW, tenure)
            tag = tl.where(v == p, 2 * release + 1 - leave, tag)
            release = step + tenure + draw(seed, step, SECOND_DRAW, tenure)
            tag = tl.where(v == q, 2 * release + leave, tag)
            energy += change.to(tl.float64)
            slack += EPSILON * (tl.abs(own) + tl.abs(gain)).to(tl.float64)
        if moved & (energy < best - slack):
            best = energy
            slack = slack * 0
            dirty = 1
            stall = 0
            since = 0
        else:
            stall += 1
            since += 1
        kick = tl.maximum(kick - 1, 0)
        if stall >= stall_limit:
            # Return to the best state, clear the tabu tags, and kick.
            if dirty > 0:
                tl.store(best_f + at, f)
                tl.store(best_tag + at, tag)
            tl.debug_barrier()
            f = tl.load(best_f + at)
            tag = tl.load(best_tag + at)
            tag = tl.where(v < n, tag & 1, tag)
            energy = best
            slack = slack * 0
            dirty = 0
            kick = kick_size + draw(seed, step, KICK_DRAW, kick_size)
            stall = -kick

    if dirty > 0:
        tl.store(best_f + at, f)
        tl.store(best_tag + at, tag)
    tl.store(f_state + at, f)
    tl.store(tag_state + at, tag)
    tl.store(ints + STEP, step)
    tl.store(ints + STALL, stall)
    tl.store(ints + SINCE, since)
    tl.store(ints + KICK, kick)
    tl.store(ints + DIRTY, 0)
    tl.store(floats + ENERGY, energy)
    tl.store(floats + BEST, best)
    tl.store(floats + SLACK, slack)
