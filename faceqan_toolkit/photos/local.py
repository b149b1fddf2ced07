"""Photos that are files of their own."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from faceqan_toolkit.errors import MissingPhoto, NoPermission, NotAFile, PhotoError, UnreadablePhoto
from faceqan_toolkit.photos.base import MOST_BYTES, check_size
from faceqan_toolkit.types import FileState
from faceqan_toolkit.wording import reason_of


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine, see `types.Content`."""

    file: Path

    def state(self) -> FileState:
        """Return its size and time; of a link, those of what it leads to."""
        try:
            found = self.file.stat()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        return FileState(found.st_size, found.st_mtime_ns)

    def read(self) -> tuple[bytes, FileState]:
        """Return its bytes and their state."""
        try:
            found = self.file.stat()
            # before it is opened: opening a pipe would wait for a writer
            if not stat.S_ISREG(found.st_mode):
                kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
                raise NotAFile(f"{kind}, not a file")
            with self.file.open("rb") as file:
                found = os.fstat(file.fileno())
                check_size(found.st_size)
                # no more at once than it says it has: so much is set aside before it is read
                data = file.read(found.st_size + 1)
                if len(data) > found.st_size:  # some have more
                    data += file.read(MOST_BYTES + 1 - len(data))
                    check_size(len(data))
                return data, FileState(found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    @property
    def name(self) -> str:
        """Its name without folders."""
        return self.file.name

    def open(self) -> BinaryIO:
        """Return it opened for reading."""
        try:
            return self.file.open("rb")
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return some of its bytes and its state."""
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
        """Return the file beside it that differs in its extension."""
        return LocalFile(self.file.with_suffix(extension))

    def _failure(self, error: OSError | ValueError) -> PhotoError:
        if isinstance(error, PermissionError):
            return NoPermission("no permission to read it")
        if isinstance(error, FileNotFoundError):
            return MissingPhoto("a link to nothing" if self.file.is_symlink() else "no such file")
        return UnreadablePhoto(reason_of(error))
