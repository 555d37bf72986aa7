"""Comparisons of 64 integers at once, whose outcomes are the bits of one word; numba's loops call them.

Of a loop that shifts and ors single comparisons LLVM makes shuffles. Of a compared vector that is read as an integer it
makes what each processor has for it, such as a mask register of AVX-512.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 64


def _type_exceed(_context: Any, words: Any, _start: Any, _bound: Any) -> Any:  # noqa: ANN401 - numba's types
    return types.uint64(words, types.intp, words.dtype), _generate_exceed


def _generate_exceed(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:  # noqa: ANN401 - numba's
    words, start, bound = arguments
    element = bound.type
    vector = ir.VectorType(element, LANES)
    data = context.make_array(signature.args[0])(context, builder, words).data
    address = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())
    loaded = builder.load(address, align=element.width // 8)
    patterns = builder.and_(loaded, ir.Constant(vector, [2 ** (element.width - 1) - 1] * LANES))
    return builder.bitcast(builder.icmp_signed(">", patterns, _repeat(builder, bound)), ir.IntType(LANES))


def _repeat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    index = ir.IntType(32)
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, value, index(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))


def _type_count(_context: Any, _word: Any) -> Any:  # noqa: ANN401 - numba's
    return types.uint64(types.uint64), lambda _context, builder, _signature, words: builder.ctpop(words[0])


def _type_find(_context: Any, _word: Any) -> Any:  # noqa: ANN401 - numba's
    return types.int64(types.uint64), lambda _context, builder, _signature, words: builder.cttz(
        words[0], ir.IntType(1)(0)
    )


# (words, start, bound): which of the 64 words from `start` on, without their sign bits, exceed the bound, which is of
# their dtype. It does not look where the words end.
exceed: Any = intrinsic(_type_exceed)
# (word): how many of its bits are set.
count_ones: Any = intrinsic(_type_count)
# (word): the place of its lowest bit that is set, 64 where none is.
find_first_one: Any = intrinsic(_type_find)
