"""Rows of a landmarks file by path, in temporary files that a process and its children share."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 10_000
"""Rows in memory while the table is written."""

ROW = np.dtype(
    [
        ("key", "u8", 2),
        ("landmarks", "f8", 10),
        ("confidence", "f8"),
        ("box", "f8", 4),
        ("has_box", "?"),
        ("rotation", "u2"),
    ]
)
"""One row on the disk; a missing confidence is NaN."""

ROWS, KEYS, ORDER = "rows", "keys.npy", "order.npy"
"""Files of a table: the rows as they came, the first halves of their keys sorted, and the row
number of each sorted key."""


class Row(NamedTuple):
    """One face of a landmarks file.

    Attributes:
        landmarks: ten coordinates, pixels.
        confidence: of the detector, in [0, 1]; None if the file has none.
        box: x1 y1 x2 y2, pixels; None if the file has none.
        rotation: degrees, see `types.Face`.
    """

    landmarks: tuple[float, ...]
    confidence: float | None
    box: tuple[float, ...] | None
    rotation: int = 0


class LandmarksTable:
    """The rows of a file by path, read once; threads may look up at the same time.

    They lie in a temporary directory, which is removed with this object, and are mapped into
    memory: a process holds none of them. Child processes find the directory by an environment
    variable and do not read the file again.

    Args:
        file: the landmarks file. Its path, size and time name the table.
        rows: its rows with their paths; only taken if no parent process has a table of this file.

    Raises:
        OSError: the file does not exist, or the temporary directory is full.
    """

    def __init__(self, file: Path, rows: Iterable[tuple[str, Row]]) -> None:
        state = file.stat()
        name = f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        variable = f"FACEQAN_TOOLKIT_LANDMARKS_{digest.upper()}"
        shared = os.environ.get(variable)
        if shared is None or not Path(shared).is_dir():
            shared = tempfile.mkdtemp(prefix="faceqan-landmarks-")
            weakref.finalize(self, _remove, shared, variable)
            _write(Path(shared), rows)
            os.environ[variable] = shared
        self._keys = np.load(Path(shared) / KEYS, mmap_mode="r")
        self._order = np.load(Path(shared) / ORDER, mmap_mode="r")
        self._rows = _mapped(Path(shared) / ROWS)

    def rows(self, path: str) -> list[Row]:
        """Return the rows of a path, in the order of the file."""
        first, second = _key(path)
        low, high = np.searchsorted(self._keys, np.array([first, first + 1], np.uint64))
        found = self._rows[self._order[low:high]]
        return [
            Row(
                tuple(row["landmarks"].tolist()),
                None if np.isnan(row["confidence"]) else float(row["confidence"]),
                tuple(row["box"].tolist()) if row["has_box"] else None,
                int(row["rotation"]),
            )
            for row in found
            if row["key"][1] == second
        ]


def _write(folder: Path, rows: Iterable[tuple[str, Row]]) -> None:
    """Write a table; memory grows by 24 bytes a row."""
    nothing = (np.nan,) * 4
    found = [np.empty(0, np.uint64)]
    with (folder / ROWS).open("wb") as file:
        for block in _blocks(rows):
            packed = np.array(
                [
                    (
                        _key(path),
                        row.landmarks,
                        np.nan if row.confidence is None else row.confidence,
                        row.box or nothing,
                        row.box is not None,
                        row.rotation,
                    )
                    for path, row in block
                ],
                ROW,
            )
            packed.tofile(file)
            found.append(packed["key"][:, 0].copy())
    keys = np.concatenate(found)
    order = np.argsort(keys, kind="stable")
    np.save(folder / KEYS, keys[order])
    np.save(folder / ORDER, order)


def _blocks(rows: Iterable[tuple[str, Row]]) -> Iterator[list[tuple[str, Row]]]:
    waiting = iter(rows)
    while block := list(islice(waiting, BLOCK)):
        yield block


def _mapped(file: Path) -> NDArray[np.void]:
    """Return the rows in a file; an empty one cannot be mapped."""
    return np.memmap(file, ROW, "r") if file.stat().st_size else np.empty(0, ROW)


def _key(path: str) -> tuple[int, int]:
    """Return 128 bits of the path's hash as two numbers; the first is below 2**64 - 1."""
    digest = hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    return first >> 1, second


def _remove(folder: str, variable: str) -> None:
    if os.environ.get(variable) == folder:
        del os.environ[variable]
    shutil.rmtree(folder, ignore_errors=True)
