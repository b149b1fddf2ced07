"""Pickles from untrusted sources, read as plain data: no import, no call of foreign code."""

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
"""Maximum size of a file in bytes. A hostile one takes up to about 64 times as much memory."""

_NUMBERS = frozenset(("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))
_PLAIN = (type(None), bool, int, float, str, bytes)


class _DType:
    """Stand-in for numpy.dtype, for numbers only."""

    def __init__(self, code: Any) -> None:
        self.code, self.order = _text(code), "="
        if self.code not in _NUMBERS:
            raise RefusedPickle(
                f"refused: the pickle has an array of {self.code[:20]!r}, not of numbers"
            )

    def set_state(self, state: Any) -> None:
        self.order = _text(state[1])
        if self.order not in ("<", ">", "=", "|"):
            raise ValueError("an unknown byte order")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.code}")


class _Array(np.ndarray[Any, Any]):
    """Numpy array, empty until its state is set."""

    def set_state(self, state: Any) -> None:
        version, shape, kind, fortran, raw = state
        if not isinstance(kind, _DType) or not isinstance(raw, bytes):
            raise ValueError("an array without bytes or dtype")
        super().__setstate__((version, shape, kind.dtype, fortran, raw))


def _from_bytes(raw: Any, kind: _DType, shape: Any, order: Any = "C") -> NDArray[Any]:
    return np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes, which Python 3 writes as Latin-1 text in the protocols 0 to 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin-1")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_NAMES: Mapping[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # empty bytes, written for Python 2
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): lambda code, align=False, copy=True: _DType(code),
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", lambda kind, shape, code: _Array((0,), np.uint8)),
            ("multiarray", "scalar", lambda kind, raw: _from_bytes(raw, kind, ()).item()),
            ("numeric", "_frombuffer", _from_bytes),
        )
    },
}
"""Stand-ins for the names in pickles of numbers, arrays and bytes."""

_OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT GLOBAL STACK_GLOBAL REDUCE
"""
"""Opcodes that run as in Python's own unpickler; all others but five are refused."""

# not pickle.Unpickler: it allocates every memo index below the largest, 32 GB for eight bytes, and
# hashes deeply nested tuples, which crashes the process
_Unpickler: Any = pickle._Unpickler


class _PlainUnpickler(_Unpickler):  # type: ignore[misc]
    """Unpickler with an allow-list of names and opcodes."""

    def find_class(self, module: Any, name: Any) -> Any:
        """Return the stand-in for a name; raise RefusedPickle if there is none."""
        try:
            return _NAMES[module, name]
        except (KeyError, TypeError):
            raise RefusedPickle(
                f"refused: the pickle would run {str(module)[:100]}.{str(name)[:100]}; "
                "nothing was run"
            ) from None

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_DType, _Array)):
            raise ValueError("a state for an object without one")
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
        if not isinstance(target, dict) or not all(isinstance(key, _PLAIN) for key in keys):
            raise ValueError("not a dictionary, or a key that is neither text nor number")
        target.update(zip(keys, items[1::2], strict=True))

    dispatch: Mapping[int, Callable[[Any], None]] = {
        **{
            code: _Unpickler.dispatch[code]
            for code in (getattr(pickle, name)[0] for name in _OPCODES.split())
        },
        pickle.BYTEARRAY8[0]: _Unpickler.dispatch[pickle.BINBYTES8[0]],
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def load_pickle(data: bytes) -> Any:
    """Return the content of a pickle of plain data, of protocol 0 to 5.

    Plain data are None, bool, int, float, str, bytes (Python 2's str, too), lists, tuples,
    dictionaries with keys of the first six, and numpy arrays and scalars of numbers. Scalars become
    Python's numbers. RefusedPickle if the pickle holds anything else, or is damaged.
    """
    try:
        value = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except RefusedPickle:
        raise
    except MemoryError as error:
        raise RefusedPickle("refused: the pickle needs more memory than there is") from error
    except Exception as error:  # damaged pickles can raise anything
        raise RefusedPickle(
            "refused: not a pickle, a damaged one, or one that holds more than plain data: "
            f"{type(error).__name__}: {str(error)[:100]}"
        ) from error
    _check_values(value)
    return value


def read_pickle(file: Path) -> Any:
    """Return the content of a pickle file, see `load_pickle`.

    OSError if the file cannot be read, RefusedPickle also if it is larger than `LARGEST`.
    """
    check_plain(file)
    if file.stat().st_size > LARGEST:
        raise RefusedPickle("refused: the pickle has more than 2 GiB")
    return load_pickle(file.read_bytes())


def _check_values(value: Any) -> None:
    """Raise RefusedPickle if a value is a stand-in instead of data."""
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if isinstance(item, (list, tuple, dict)):
            if id(item) not in seen:
                seen.add(id(item))
                pending.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, (*_PLAIN, np.ndarray)):
            raise RefusedPickle("refused: the pickle has a name or dtype where data should be")
