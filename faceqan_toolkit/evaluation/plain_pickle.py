"""Pickles from strangers, read as data: nothing is imported, nothing is called.

Python's own reader is a machine that builds whatever the file asks for. This one knows the
instructions that numbers, texts, lists, tuples, dictionaries and numpy arrays are written with,
and stops at every other.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import RefusedPickle

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

_NUMBERS = frozenset(("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))


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
    machine = _Machine()
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
        if opcode.name == "STOP":
            return machine.result()
        argument: Any = opcode.arg.reader(stream) if opcode.arg else None
        _INSTRUCTIONS[opcode.name](machine, argument)


class _Machine:
    """Python's pickle machine: a stack of values, and a memory for those that come again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, number: int) -> list[Any]:
        if len(self.stack) < number:
            raise _Malformed("a value is missing")
        items = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return items

    def mark(self) -> None:
        self.below_marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _Malformed("items for what is no list")
        target.extend(_data(items))

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Malformed("items for what is no dictionary")
        for key, value in zip(items[::2], _data(items)[1::2], strict=True):
            if not isinstance(key, (str, bytes, int, float)):
                raise _Malformed("a key that is neither text nor number")
            target[key] = value

    def store(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        stored = self.memo[index]
        finished = isinstance(stored, _Array) and stored.value is not None
        self.push(stored.value if finished else stored)

    def result(self) -> Any:
        (result,) = _data(self.stack)
        return result


def _data(items: list[Any]) -> list[Any]:
    if any(isinstance(item, (_Name, _DType, _Array)) for item in items):
        raise _Malformed("a name where data should be")
    return items


def _check_protocol(number: int) -> None:
    if not 2 <= number <= 5:
        raise _Malformed(f"protocol {number}")


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


_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
         "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
         "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        _Machine.push,
    ),
    "BYTEARRAY8": lambda machine, content: machine.push(bytes(content)),
    # Python 2's texts
    "SHORT_BINSTRING": lambda machine, text: machine.push(text.encode("latin-1")),
    "BINSTRING": lambda machine, text: machine.push(text.encode("latin-1")),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.update(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine.store(len(machine.memo)),
    "BINPUT": _Machine.store,
    "LONG_BINPUT": _Machine.store,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": lambda machine, name: machine.push(_named(*name.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(_named(*machine.pop(2))),
    "REDUCE": lambda machine, _: machine.push(_made(*machine.pop(2))),
    "BUILD": lambda machine, _: machine.push(_built(*machine.pop(2))),
    "PROTO": lambda _, number: _check_protocol(number),
    "FRAME": lambda _machine, _length: None,
}  # fmt: skip
"""What each instruction does, given its argument."""
_OPCODES = {
    opcode.code.encode("latin-1"): opcode
    for opcode in pickletools.opcodes
    if opcode.name in {*_INSTRUCTIONS, "STOP"}
}
