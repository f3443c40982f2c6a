"""A hint to the processor, as a function that numba kernels can call.

numba's cache looks at the file of a kernel only: whoever changes this one has to touch those that import it, too.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Have the cache line at the start of `array[row]` fetched; changes no result. `row` must exist."""
    from llvmlite import ir  # type: ignore[import-untyped]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, arguments[0])
        first = context.cast(builder, arguments[1], signature.args[1], types.intp)
        zero = context.get_constant(types.intp, 0)
        address = cgutils.get_item_pointer(context, builder, kind, view, [first] + [zero] * (kind.ndim - 1))
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        # LLVM adds or drops the pointer's type in the name as its version wants it.
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0i8"
        )
        read, keep, data = word(0), word(3), word(1)
        builder.call(function, [builder.bitcast(address, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, row), generate
