"""Pickles from strangers, read as data: nothing is imported, nothing of theirs is called."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import RefusedPickle
from faceqan_toolkit.files import check_plain

LARGEST = 2 << 30
"""Bytes of a file. In memory a hostile one takes up to about 64 times as much."""

_NUMBERS = frozenset(("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))
_PLAIN = (type(None), bool, int, float, str, bytes)


class _DType:
    """A numpy dtype while it is unpickled: of numbers only."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        self.code, self.order = _text(code), "="
        if self.code not in _NUMBERS:
            raise RefusedPickle(
                f"a pickle with an array of {self.code[:20]!r}, not of numbers; refused"
            )

    def set_state(self, state: Any) -> None:
        self.order = _text(state[1])
        if self.order not in ("<", ">", "=", "|"):
            raise ValueError("an unknown byte order")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.code}")


class _Array(np.ndarray[Any, Any]):
    """A numpy array, empty until the pickle gives its state."""

    def set_state(self, state: Any) -> None:
        version, shape, kind, fortran, raw = state
        if not isinstance(kind, _DType) or not isinstance(raw, bytes):
            raise ValueError("an array without bytes or dtype")
        super().__setstate__((version, shape, kind.dtype, fortran, raw))


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes as Python 3 writes them in the protocols 0 to 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin-1")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array((0,), np.uint8)


def _frombuffer(raw: Any, kind: _DType, shape: Any, order: Any) -> NDArray[Any]:
    return np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: _DType, raw: Any) -> Any:
    return np.frombuffer(raw, kind.dtype).reshape(()).item()


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_NAMES: Mapping[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # empty ones, written for Python 2
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): lambda *arguments: _DType(*arguments),
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
"""Names that numbers, arrays and bytes are pickled with; functions of this module answer them."""

_OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT GLOBAL STACK_GLOBAL REDUCE
"""
"""Instructions that Python's reader may follow as it does; all others but five are refused."""


def _code(name: str) -> int:
    code: bytes = getattr(pickle, name)
    return code[0]


# Python's reader in C makes room for every memo index below the highest: 32 GB for eight bytes
_Reader: Any = pickle._Unpickler


class _Unpickler(_Reader):  # type: ignore[misc]
    """Python's reader with the opcodes of plain data and nothing to import."""

    def find_class(self, module: Any, name: Any) -> Any:
        """Return what stands for one of numpy's names; refuse every other."""
        try:
            return _NAMES[module, name]
        except (KeyError, TypeError):
            raise RefusedPickle(
                f"a pickle that wants to run {str(module)[:100]}.{str(name)[:100]}; refused, "
                "nothing was run"
            ) from None

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_DType, _Array)):
            raise ValueError("a state for what has none")
        self.stack[-1].set_state(state)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.add_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.add_items([key, value])

    def load_setitems(self) -> None:
        self.add_items(self.pop_mark())

    def add_items(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        # hashing a deeply nested tuple ends the process
        if not isinstance(target, dict) or not all(isinstance(key, _PLAIN) for key in keys):
            raise ValueError("no dictionary, or a key that is neither text nor number")
        target.update(zip(keys, items[1::2], strict=True))

    dispatch: Mapping[int, Callable[[Any], None]] = {
        **{code: _Reader.dispatch[code] for code in map(_code, _OPCODES.split())},
        pickle.BYTEARRAY8[0]: _Reader.dispatch[pickle.BINBYTES8[0]],
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def load_plain(data: bytes) -> Any:
    """Return what a pickle holds, if that is plain data.

    Plain are None, bools, ints, floats, str, bytes (Python 2's str included), lists, tuples,
    dictionaries with keys of those, and numpy arrays and scalars of numbers; numpy scalars are
    returned as Python's.

    Args:
        data: of protocol 0 to 5.

    Raises:
        RefusedPickle: it asks for anything else, or is damaged.
    """
    try:
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except RefusedPickle:
        raise
    except MemoryError as error:
        raise RefusedPickle("a pickle too large for this machine's memory") from error
    except Exception as error:  # damaged bytes fail in every way
        raise RefusedPickle(
            "no pickle, a damaged one or one that holds more than plain data; refused: "
            f"{type(error).__name__}: {str(error)[:100]}"
        ) from error
    _check_plain(value)
    return value


def read_plain(file: Path) -> Any:
    """Return what a pickle file holds, see `load_plain`.

    Raises:
        OSError: the file cannot be read.
        RefusedPickle: it is larger than `LARGEST`, or see `load_plain`.
    """
    check_plain(file)
    if file.stat().st_size > LARGEST:
        raise RefusedPickle("a pickle of more than 2 GiB; refused")
    return load_plain(file.read_bytes())


def _check_plain(value: Any) -> None:
    """Make sure that no name or dtype is left where data should be."""
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if isinstance(item, (list, tuple, dict)):
            if id(item) not in seen:
                seen.add(id(item))
                pending.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, (*_PLAIN, np.ndarray)):
            raise RefusedPickle("a pickle with a name where data should be; refused")
