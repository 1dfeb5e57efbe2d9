"""What numba has no words for: reading a number at any byte, and asking for memory early.

Functions that kernels call; they become part of their code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from psys.kernels.compiling import inner

if TYPE_CHECKING:
    from psys.arrays import Array

ROWS_AHEAD = 32
"""So many rows early is a row asked for: by the time the loop is there, it has arrived."""
MOST_ELEMENTS_AHEAD = 128
"""Of a longer row the rest is not asked for: the processor sees by itself what comes next."""
LINE_ELEMENTS = 16
"""An element in so many is asked for: of float32 one in each 64 bytes, which a processor fetches at
once; of float64 one in every second 64."""


def _load_number(_typing: Any, s: Any, at: Any, like: Any) -> Any:
    """Return the bytes of ``s`` from ``at`` as one little-endian number of the type of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = context.get_value_type(signature.return_type)
        place = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(place, word.as_pointer()), align=1)

    return like(s, at, like), generate


def _prefetch(_typing: Any, table: Any, at: Any) -> Any:
    """Ask for element ``at`` of ``table``, all of it taken as one row, to be written soon."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), address)
        kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
        for_writing, into_every_cache, data = number(1), number(3), number(1)
        builder.call(instruction, [place, for_writing, into_every_cache, data])
        return context.get_dummy_value()

    return types.none(table, at), generate


def _plain_load(s: Any, at: Any, like: Any) -> Any:
    return s[at : at + like.nbytes].view(like.dtype)[0]


def _plain_prefetch(_table: Any, _at: Any) -> None:
    """Do nothing: that loads nothing early, and changes no result."""


_compiled = not numba.config.DISABLE_JIT
load_number: Any = intrinsic(_load_number) if _compiled else _plain_load
_ask_for: Any = intrinsic(_prefetch) if _compiled else _plain_prefetch


@inner
def later(indices: Array, i: int) -> int:
    """Return the row that the loop over ``indices`` comes to ``ROWS_AHEAD`` rows after ``i``."""
    # Never beyond the end, rather than not at all: a branch here costs more than it saves.
    row: int = indices[min(i + ROWS_AHEAD, len(indices) - 1)]
    return row


@inner
def ask_for(table: Array, row: int) -> None:
    """Have a row of ``table`` ``[n, width]`` fetched into the cache while the loop goes on.

    Rows of a batch lie anywhere in gigabytes; a loop that waits for each one does nothing else.
    """
    width = table.shape[1]
    at = row * width
    for column in range(0, min(width, MOST_ELEMENTS_AHEAD), LINE_ELEMENTS):
        _ask_for(table, at + column)
    _ask_for(table, at + width - 1)  # a row may begin in the middle of a line
