"""Pickles from strangers, read as data: nothing is imported, nothing is called.

Python's own reader is a machine that builds whatever the file asks for. This one knows the
instructions that numbers, texts, lists, tuples, dictionaries and numpy arrays are written with,
and stops at every other.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import RefusedPickle

_VALUES = frozenset((
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "SHORT_BINSTRING", "BINSTRING", "TUPLE",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
    "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
))  # fmt: skip
_OPCODES = {
    opcode.code.encode("latin-1"): opcode
    for opcode in pickletools.opcodes
    if opcode.name in {*_VALUES, *_CONSTANTS, *_TUPLES, *_OTHERS}
}

_ARRAY_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes for Python 2
    ("__builtin__", "bytes"): "bytes",  # and empty ones
    **{
        (f"numpy.{core}.{module}", name): name
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    },
}
"""What numpy's values are written with; these names are only recognised, never looked up."""

_NUMBERS = frozenset(
    ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
)  # fmt: skip


class _Malformed(Exception):
    """The instructions make no sense."""


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass
class _DType:
    code: str
    order: str = "="

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.code}")


@dataclass
class _Array:
    value: NDArray[Any] | None = None


def load_plain(data: bytes) -> Any:
    """Return what a pickle holds, if that is plain data.

    Plain are None, bools, ints, floats, str, bytes (Python 2's str included), lists, tuples,
    dictionaries with keys of those, and numpy arrays and scalars of numbers; numpy scalars are
    returned as Python's.

    Args:
        data: of protocol 2 to 5.

    Raises:
        RefusedPickle: it asks for anything else, or is damaged.
    """
    try:
        return _read(io.BytesIO(data))
    except RefusedPickle:
        raise
    except (_Malformed, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise RefusedPickle(f"a damaged pickle: {error}") from error
    except MemoryError as error:
        raise RefusedPickle("a pickle too large for this machine's memory") from error


def _read(stream: io.BytesIO) -> Any:
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[int, Any] = {}
    while True:
        code = stream.read(1)
        if not code:
            raise _Malformed("it ends too early")
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise RefusedPickle(
                "a pickle that is more than plain data, or none at all "
                f"(instruction {code!r} at byte {stream.tell() - 1}); refused"
            )
        name = opcode.name
        argument: Any = opcode.arg.reader(stream) if opcode.arg else None
        if name in _VALUES:
            stack.append(bytes(argument) if name == "BYTEARRAY8" else argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("SHORT_BINSTRING", "BINSTRING"):
            stack.append(argument.encode("latin-1"))
        elif name in _TUPLES:
            stack.append(tuple(_pop(stack, _TUPLES[name])))
        elif name == "MARK":
            outer.append(stack)
            stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, outer.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            else:
                (_extend if name == "APPENDS" else _update)(stack[-1], items)
        elif name == "APPEND":
            items = _pop(stack, 1)
            _extend(stack[-1], items)
        elif name == "SETITEM":
            items = _pop(stack, 2)
            _update(stack[-1], items)
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stored = memo[argument]
            finished = isinstance(stored, _Array) and stored.value is not None
            stack.append(stored.value if finished else stored)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(_named(module, attribute))
        elif name == "STACK_GLOBAL":
            stack.append(_named(*_pop(stack, 2)))
        elif name == "REDUCE":
            called, arguments = _pop(stack, 2)
            stack.append(_made(called, arguments))
        elif name == "BUILD":
            target, state = _pop(stack, 2)
            stack.append(_built(target, state))
        elif name == "PROTO" and not 2 <= argument <= 5:
            raise _Malformed(f"protocol {argument}")
        elif name == "STOP":
            (result,) = stack
            if isinstance(result, (_Name, _DType, _Array)):
                raise _Malformed("it holds no data")
            return result


def _pop(stack: list[Any], number: int) -> list[Any]:
    if len(stack) < number:
        raise _Malformed("a value is missing")
    items = stack[len(stack) - number :]
    del stack[len(stack) - number :]
    return items


def _data(items: list[Any]) -> list[Any]:
    if any(isinstance(item, (_Name, _DType, _Array)) for item in items):
        raise _Malformed("a name where data should be")
    return items


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise _Malformed("items for what is no list")
    target.extend(_data(items))


def _update(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise _Malformed("items for what is no dictionary")
    for key, value in zip(items[::2], _data(items)[1::2], strict=True):
        if not isinstance(key, (str, bytes, int, float)):
            raise _Malformed("a key that is neither text nor number")
        target[key] = value


def _named(module: Any, attribute: Any) -> _Name:
    known = _ARRAY_NAMES.get((module, attribute)) if isinstance(module, str) else None
    if known is None:
        raise RefusedPickle(
            f"a pickle that wants to run {str(module)[:100]}.{str(attribute)[:100]}; refused, "
            "nothing was run"
        )
    return _Name(known)


def _made(called: Any, arguments: Any) -> Any:
    """Return what one of numpy's own ways of writing stands for."""
    makers: dict[str, Callable[..., Any]] = {
        "dtype": _make_dtype,
        "encode": _make_bytes,
        "bytes": bytes if arguments == () else _make_nothing,
        "scalar": _make_scalar,
        "_reconstruct": _make_empty,
        "_frombuffer": _make_array,
    }
    if not isinstance(called, _Name) or called.name not in makers:
        raise _Malformed("a call of what cannot be called")
    if not isinstance(arguments, tuple):
        raise _Malformed("arguments that are none")
    return makers[called.name](*arguments)


def _make_dtype(code: Any, align: Any = False, copy: Any = True) -> _DType:
    text = _text(code)
    if text not in _NUMBERS:
        raise RefusedPickle(f"a pickle with an array of {text[:20]!r}, not of numbers; refused")
    return _DType(text)


def _make_bytes(text: Any, encoding: Any) -> bytes:
    if _text(encoding) not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _Malformed("text in an unknown encoding")
    return text.encode("latin-1")


def _make_nothing(*arguments: Any) -> None:
    raise _Malformed("bytes of something")


def _make_scalar(dtype: Any, raw: Any) -> Any:
    return _array(raw, dtype, (1,), "C")[0].item()


def _make_empty(kind: Any, shape: Any, code: Any) -> _Array:
    if kind != _Name("ndarray"):
        raise _Malformed("an array of an unknown kind")
    return _Array()


def _make_array(raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    return _array(raw, dtype, shape, "F" if _text(order) == "F" else "C")


def _built(target: Any, state: Any) -> Any:
    if isinstance(target, _DType):
        _, order, subtype, names, fields, *_ = state
        if _text(order) not in ("<", ">", "=", "|") or (subtype, names, fields) != (None,) * 3:
            raise _Malformed("an unknown kind of number")
        target.order = _text(order)
        return target
    if isinstance(target, _Array) and target.value is None:
        _, shape, dtype, fortran, raw = state
        target.value = _array(raw, dtype, shape, "F" if fortran else "C")
        return target.value
    raise _Malformed("a state for what has none")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(raw, bytes) or not isinstance(dtype, _DType):
        raise _Malformed("an array without bytes or kind")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise _Malformed("an array without a shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise _Malformed("an array whose shape does not fit its bytes")
    flat = np.frombuffer(raw, dtype.dtype) if raw else np.empty(0, dtype.dtype)
    return flat.reshape(shape, order=order)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise _Malformed("a text is missing")
    return value
