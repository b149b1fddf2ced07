"""Files that photos are read from: on this machine here, behind URLs in `remote`."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from faceqan_toolkit.errors import (
    MissingPhoto,
    NoPermission,
    NotAFile,
    PhotoError,
    TooLarge,
    UnreadablePhoto,
)
from faceqan_toolkit.text import reason_of
from faceqan_toolkit.types import Content, FileState

PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("heic", "heif", "avif"),
    )
)
"""Extensions of photos in folders and archives; a file given by name may have any."""

MOST_BYTES = 2 << 30
"""Largest encoded photo. 200 megapixels of four 16-bit channels, uncompressed, are 1.6 GB."""


def extension(name: str) -> str:
    """Return a name's extension in lower case with its dot; "" if it has none."""
    head, dot, tail = name.rpartition("/")[2].rpartition(".")
    return f".{tail.lower()}" if dot and head else ""


def check_size(size: int) -> None:
    """Check that a photo of `size` bytes may be read into memory.

    Raises:
        TooLarge: it has more than `MOST_BYTES`.
    """
    if size > MOST_BYTES:
        raise TooLarge(f"{size:,} bytes, more than the {MOST_BYTES:,} that a photo may have")


class Store(Content, Protocol):
    """A file on this machine or behind a URL; hashable and picklable."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """File name without folders."""
        ...

    def open(self) -> BinaryIO:
        """Open the file for reading, seekable.

        Raises:
            PhotoError: the file cannot be opened.
        """
        ...

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, fewer at the end, and the file state.

        Raises:
            PhotoError: the file cannot be read.
        """
        ...

    def sibling(self, extension: str) -> Store:
        """Return the file beside it with another extension."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, see `Store`."""

    file: Path

    def state(self) -> FileState:
        """Return size and modification time, links followed."""
        try:
            found = self.file.stat()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        return FileState(found.st_size, found.st_mtime_ns)

    def read(self) -> tuple[bytes, FileState]:
        """Return the content and its state."""
        try:
            found = self.file.stat()
            # checked before opening: opening a pipe would wait for a writer
            if not stat.S_ISREG(found.st_mode):
                kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
                raise NotAFile(f"{kind}, not a file")
            with self.file.open("rb") as file:
                found = os.fstat(file.fileno())
                check_size(found.st_size)
                # read() allocates the requested size, so request no more than the file claims
                data = file.read(found.st_size + 1)
                if len(data) > found.st_size:  # it has grown
                    data += file.read(MOST_BYTES + 1 - len(data))
                    check_size(len(data))
                return data, FileState(found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.file.name

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        try:
            return self.file.open("rb")
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, and the file state."""
        try:
            with self.file.open("rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                file.seek(offset)
                pieces = []
                while size and (piece := file.read(size)):
                    pieces.append(piece)
                    size -= len(piece)
            return b"".join(pieces), FileState(found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def sibling(self, extension: str) -> LocalFile:
        """Return the file beside it with another extension."""
        return LocalFile(self.file.with_suffix(extension))

    def _failure(self, error: OSError | ValueError) -> PhotoError:
        if isinstance(error, PermissionError):
            return NoPermission("no permission to read it")
        if isinstance(error, FileNotFoundError):
            return MissingPhoto("a link to nothing" if self.file.is_symlink() else "no such file")
        return UnreadablePhoto(reason_of(error))
