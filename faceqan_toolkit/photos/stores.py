"""What photos are read from: files on this machine, and parts and members of archives."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
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
    """Raise TooLarge if a photo has more than `MOST_BYTES`."""
    if size > MOST_BYTES:
        raise TooLarge(f"{size:,} bytes, more than the {MOST_BYTES:,} that a photo may have")


class Store(Content, Protocol):
    """A file on this machine or behind a URL; hashable and picklable. It raises PhotoErrors."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """File name without folders."""
        ...

    def open(self) -> BinaryIO:
        """Open the file for reading, seekable."""
        ...

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return bytes from an offset on, fewer at the end, and the file state."""
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


LABEL_NAMES = ("label", "identity", "subject", "person")
"""Columns of a table, or keys of a sample's JSON, that hold a photo's label."""


class Archive(Protocol):
    """A file with photos in it, treated as a folder; picklable."""

    def members(self) -> Iterator[tuple[str, Content]]:
        """Yield names and contents in file order; names are safe and unique.

        Raises PhotoError after all readable members if the archive is damaged.
        """
        ...

    def find(self, name: str) -> Content:
        """Return a member by its name in `members`; raise PhotoError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Slice:
    """A photo inside a file.

    Attributes:
        store: the file.
        parts: offset and size of each piece, bytes.
        mtime_ns: modification time of the file when it was indexed.
        glue: bytes between the pieces.
        skip: number of leading bytes, of the joined pieces, that precede the photo.
    """

    store: Store
    parts: tuple[tuple[int, int], ...]
    mtime_ns: int
    glue: bytes = b""
    skip: int = 0

    def state(self) -> FileState:
        """Return the photo's size and the file's time when it was indexed."""
        size = sum(size for _, size in self.parts) + len(self.glue) * (len(self.parts) - 1)
        return FileState(size - self.skip, self.mtime_ns)

    def read(self) -> tuple[bytes, FileState]:
        """Return the photo and its state."""
        check_size(self.state().size)
        pieces = []
        for offset, size in self.parts:
            piece, found = self.store.read_at(offset, size)
            if found.mtime_ns != self.mtime_ns:
                raise UnreadablePhoto("the archive was changed meanwhile; run again")
            if len(piece) != size:
                raise UnreadablePhoto("the archive ends before the photo does")
            pieces.append(piece)
        return self.glue.join(pieces)[self.skip :], self.state()


@dataclass(frozen=True)
class Inside:
    """A member of an archive, looked up when it is read."""

    archive: Archive
    member: str

    def state(self) -> FileState:
        """Return the member's state."""
        return self.archive.find(self.member).state()

    def read(self) -> tuple[bytes, FileState]:
        """Return the member's content and state."""
        return self.archive.find(self.member).read()


@dataclass(frozen=True)
class Failed:
    """An archive that cannot be read, or not to its end."""

    store: Store
    error: PhotoError

    def state(self) -> FileState:
        """Return the archive's state."""
        return self.store.state()

    def read(self) -> tuple[bytes, FileState]:
        """Raise the archive's error."""
        raise self.error


def told_extension(start: bytes) -> str:
    """Return the extension of an encoded photo from its first bytes."""
    return ".png" if start.startswith(b"\x89PNG") else ".jpg"


def label_folder(label: object) -> str:
    """Return the folder name of a label, with its slash; "" without a label.

    Integers have at least five digits. Characters that a folder name cannot have are
    percent-encoded.

    Examples:
        >>> label_folder(7), label_folder("ann/lee"), label_folder(".."), label_folder("")
        ('00007/', 'ann%2Flee/', '%2E%2E/', '')
    """
    if label is None or label == "":
        return ""
    if isinstance(label, int):
        return f"{label:05d}/"
    return f"{_NO_FOLDER_NAME.sub(_percent_encoded, str(label))}/"


def _percent_encoded(found: re.Match[str]) -> str:
    return "".join(f"%{ord(character):02X}" for character in found[0])


_NO_FOLDER_NAME = re.compile(r"[/\\\0\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})|^\.{1,2}$")


def is_safe(name: str) -> bool:
    """Tell whether a relative name stays inside its folder on every operating system."""
    return not {"\0", "\\"} & set(name) and not {"", ".", ".."} & set(name.split("/"))


def is_hidden(name: str) -> bool:
    """Tell whether a file, or a folder in its path, is hidden; a search skips it."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


class Names:
    """Checks the names of an archive's members while they are read; reports what was left out."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._taken = 0
        self._left_out: dict[str, tuple[int, str]] = {}

    def take(self, name: str, is_new: bool | None = None) -> bool:
        """Tell whether a name is safe and new; `is_new` replaces comparing it with earlier ones."""
        if is_new is None:
            is_new = name not in self._names
            self._names.add(name)
        if not is_safe(name):
            self.leave_out(name, "whose names lead out of it")
        elif not is_new:
            self.leave_out(name, "whose names came before")
        else:
            self._taken += 1
            return True
        return False

    def leave_out(self, name: str, why: str) -> None:
        """Count a member that is not taken."""
        count, first = self._left_out.get(why, (0, name))
        self._left_out[why] = (count + 1, first)

    def finish(self, damage: str = "") -> None:
        """Raise UnreadablePhoto if there is damage, no photo, or a member was left out."""
        reasons = [damage] if damage else []
        reasons += [
            f"left out {count:,} {why}, e.g. {first[:80]!r}"
            for why, (count, first) in self._left_out.items()
        ]
        if self._taken and damage:
            reasons[0] += f"; the {self._taken:,} photos before that are used"
        if not reasons and not self._taken:
            reasons = ["no photos in it"]
        if reasons:
            raise UnreadablePhoto("; ".join(reasons))
