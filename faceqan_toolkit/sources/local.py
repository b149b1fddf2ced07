"""Photos that are files of their own."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from faceqan_toolkit.errors import MissingPhoto, NoPermission, NotAFile, PhotoError, UnreadablePhoto
from faceqan_toolkit.types import FileState


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
                return file.read(), FileState(found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError | ValueError) -> PhotoError:
        if isinstance(error, PermissionError):
            return NoPermission("no permission to read it")
        if isinstance(error, FileNotFoundError):
            return MissingPhoto("a link to nothing" if self.file.is_symlink() else "no such file")
        return UnreadablePhoto(getattr(error, "strerror", None) or str(error))
