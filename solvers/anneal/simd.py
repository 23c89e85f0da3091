"""What numba does not vectorise by itself: minima, maxima and small matrix products.

A reduction ``m = min(m, v)`` in numba becomes a scalar loop, because LLVM must respect
NaN; and a matrix product needs its partial sums in registers, which arrays can't promise.
Both are written here as LLVM instructions: :func:`fmin` and :func:`fmax` as intrinsics
that assume no NaN, :func:`tile` as a block of vector multiply-adds. LLVM maps the vectors
to whatever the machine has.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

#: A number in a kernel: float64, or the float32 of the arrays.
Real = float | np.floating[Any]

#: No NaN or signed zero ever arises; infinities do (closed variables), so not "ninf".
_FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}
jit = numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")

_WIDTH = 8
#: Rows and columns that one :func:`tile` computes.
TILE_ROWS, TILE_COLUMNS = 4, 2 * _WIDTH


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
def _tile(_context: Any, left: Any, right: Any, out: Any, i: Any, j: Any) -> Any:
    """``out[i:i+4, j:j+16] = (leftᵀ right)[i:i+4, j:j+16]``, all float32 and C-contiguous.

    ``left`` has shape (m, ≥ i + 4), ``right`` (m, ≥ j + 16); nothing is checked.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], args[:3], strict=True)
        ]
        widths = [cgutils.unpack_tuple(builder, array.shape)[1] for array in arrays]
        depth = cgutils.unpack_tuple(builder, arrays[0].shape)[0]
        vector = ir.VectorType(ir.FloatType(), _WIDTH)
        index = ir.IntType(64)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), _WIDTH), [0] * _WIDTH)
        empty = ir.Constant(vector, ir.Undefined)

        def at(array: int, row: Any, column: Any, ahead: int) -> Any:
            place = builder.add(builder.mul(row, widths[array]), column)
            return builder.gep(arrays[array].data, [builder.add(place, index(ahead))])

        def as_vector(pointer: Any) -> Any:
            return builder.bitcast(pointer, vector.as_pointer())

        columns = TILE_COLUMNS // _WIDTH
        zero = ir.Constant(vector, [0.0] * _WIDTH)
        sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in range(columns)]
            for _ in range(TILE_ROWS)
        ]
        with cgutils.for_range(builder, depth) as loop:
            factors = [
                builder.load(as_vector(at(1, loop.index, args[4], _WIDTH * c)), align=4)
                for c in range(columns)
            ]
            for r in range(TILE_ROWS):
                scalar = builder.load(at(0, loop.index, args[3], r))
                lane = builder.insert_element(empty, scalar, ir.IntType(32)(0))
                lane = builder.shuffle_vector(lane, empty, spread)
                for c in range(columns):
                    product = builder.fmul(lane, factors[c], flags=tuple(_FAST))
                    total = builder.fadd(builder.load(sums[r][c]), product, flags=tuple(_FAST))
                    builder.store(total, sums[r][c])
        for r in range(TILE_ROWS):
            row = builder.add(args[3], index(r))
            for c in range(columns):
                place = as_vector(at(2, row, args[4], _WIDTH * c))
                builder.store(builder.load(sums[r][c]), place, align=4)
        return context.get_dummy_value()

    return types.void(left, right, out, i, j), emit


#: The same by the name that the kernels use: numba passes the first argument itself.
tile: Any = _tile


@jit
def round_up(count: int) -> int:
    """Round up to a multiple of a tile's columns."""
    return (count + TILE_COLUMNS - 1) // TILE_COLUMNS * TILE_COLUMNS
