"""Vectorised minima, maxima and small matrix products for numba.

Numba compiles a reduction ``m = min(m, v)`` to a scalar loop, because LLVM must respect NaN; and
the partial sums of a matrix product should be in registers, which arrays don't guarantee. Both
are written here as LLVM instructions: :func:`fmin` and :func:`fmax` as intrinsics that assume no
NaN, :func:`dots` as a block of vector multiply-adds. LLVM maps the vectors to those of the
machine.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from solvers import _numba

#: A number in a kernel: float64, or the float32 of the arrays.
Real = float | np.floating[Any]

#: NaN and signed zeros never occur; infinities do (closed variables), so "ninf" is not set.
_FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}
jit = partial(_numba.jit, fastmath=_FAST)

#: Floats of a vector; rows of a factor are padded to a multiple of it.
WIDTH = 8
#: Numbers of rows of both sides in one call of :func:`dots`.
DOT_ROWS, DOT_COLUMNS = 4, 2


def _extremum(name: str) -> Any:
    @intrinsic
    def extremum(_context: Any, a: Any, b: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            kind = args[0].type
            function = builder.module.declare_intrinsic(
                f"llvm.{name}", [kind], ir.FunctionType(kind, [kind, kind])
            )
            return builder.call(function, args, fastmath=("nnan", "nsz"))

        return (a(a, b), emit) if isinstance(a, types.Float) and a == b else None

    return extremum


#: Minimum and maximum of two floats of one type, neither NaN; reductions vectorise.
fmin, fmax = _extremum("minnum"), _extremum("maxnum")


@intrinsic
def _dots(
    _context: Any, matrix: Any, left: Any, i: Any, right: Any, j: Any, out: Any
) -> tuple[Any, Any]:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix, left, right, out = (
            context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 1, 3, 5)
        )
        index = ir.IntType(64)
        vector = ir.VectorType(ir.FloatType(), WIDTH)
        depth = cgutils.unpack_tuple(builder, matrix.shape)[1]
        stride = cgutils.unpack_tuple(builder, out.shape)[1]

        def checked(at: Any, array: Any, axis: int) -> Any:
            """Return an index, checked if numba checks bounds."""
            if context.enable_boundscheck:
                size = cgutils.unpack_tuple(builder, array.shape)[axis]
                cgutils.do_boundscheck(context, builder, at, size, axis)
            return at

        def row(chosen: Any, start: Any, ahead: int) -> Any:
            at = checked(builder.add(start, index(ahead)), chosen, 0)
            which = checked(builder.load(builder.gep(chosen.data, [at])), matrix, 0)
            return builder.gep(matrix.data, [builder.mul(which, depth)])

        def shuffle(a: Any, b: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
            return builder.shuffle_vector(a, b, mask)

        def pairwise_sums(a: Any, b: Any) -> Any:
            even = shuffle(a, b, list(range(0, 2 * WIDTH, 2)))
            return builder.fadd(even, shuffle(a, b, list(range(1, 2 * WIDTH, 2))), flags=flags)

        flags = tuple(sorted(_FAST))
        rows = [row(left, args[2], r) for r in range(DOT_ROWS)]
        columns = [row(right, args[4], c) for c in range(DOT_COLUMNS)]
        zero = ir.Constant(vector, [0.0] * WIDTH)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(DOT_ROWS * DOT_COLUMNS)]
        with cgutils.for_range_slice(builder, index(0), depth, index(WIDTH), index) as (at, _):

            def chunk(start: Any) -> Any:
                place = builder.bitcast(builder.gep(start, [at]), vector.as_pointer())
                return builder.load(place, align=4)

            factors = [chunk(start) for start in columns]
            for r, start in enumerate(rows):
                factor = chunk(start)
                for c in range(DOT_COLUMNS):
                    total = sums[DOT_COLUMNS * r + c]
                    product = builder.fmul(factor, factors[c], flags=flags)
                    builder.store(builder.fadd(builder.load(total), product, flags=flags), total)
        # Three rounds of pairwise sums turn eight vectors into the vector of their totals.
        totals = [builder.load(total) for total in sums]
        while len(totals) > 1:
            totals = [pairwise_sums(*totals[k : k + 2]) for k in range(0, len(totals), 2)]
        for r in range(DOT_ROWS):
            line = shuffle(totals[0], totals[0], [DOT_COLUMNS * r, DOT_COLUMNS * r + 1])
            checked(builder.add(args[4], index(DOT_COLUMNS - 1)), out, 1)
            place = builder.mul(checked(builder.add(args[2], index(r)), out, 0), stride)
            place = builder.gep(out.data, [builder.add(place, args[4])])
            builder.store(line, builder.bitcast(place, line.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(matrix, left, i, right, j, out), emit


#: ``dots(matrix, left, i, right, j, out)``:
#: ``out[i+r, j+c] = matrix[left[i+r]] · matrix[right[j+c]]`` for r < 4, c < 2. All are
#: C-contiguous, matrix and out float32, left and right int64; the row length of matrix is a
#: multiple of 8. Indices are checked where numba checks those of arrays
#: (``NUMBA_BOUNDSCHECK=1``).
dots: Any = _dots


@jit
def round_up(count: int) -> int:
    """Round up to a multiple of the vector width, as :func:`dots` requires."""
    return (count + WIDTH - 1) // WIDTH * WIDTH
