"""What archives are made of: a file that can be read at any place, and members in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from faceqan_toolkit.errors import PhotoError, TooLarge, UnreadablePhoto
from faceqan_toolkit.types import Content, FileState

MOST_BYTES = 2 << 30
"""Of one encoded photo; 200 megapixels of four 16-bit channels, not compressed, are 1.6 GB."""


def check_size(size: int) -> None:
    """Do nothing if a photo of so many bytes may be read into memory.

    Raises:
        TooLarge: it may not.
    """
    if size > MOST_BYTES:
        raise TooLarge(f"{size:,} bytes, more than the {MOST_BYTES:,} that a photo may have")


class Store(Content, Protocol):
    """A whole file, here or elsewhere; hashable, and pickles."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """Its name without folders, for people."""
        ...

    def open(self) -> BinaryIO:
        """Return it opened for reading, seekable.

        Raises:
            PhotoError: it cannot be opened.
        """
        ...

    def read_at(self, offset: int, size: int) -> tuple[bytes, FileState]:
        """Return some of its bytes, fewer at its end, and its state.

        Raises:
            PhotoError: they cannot be read.
        """
        ...

    def sibling(self, extension: str) -> Store:
        """Return the file beside it that differs in its extension."""
        ...


class Archive(Protocol):
    """A file with photos in it, treated as a folder; pickles."""

    @property
    def store(self) -> Store:
        """The file itself."""
        ...

    def members(self) -> Iterator[tuple[str, Content]]:
        """Yield names, safe and each once, and contents, in the order of the file.

        Raises:
            PhotoError: what is wrong with the archive, after all members that are good.
        """
        ...

    def find(self, name: str) -> Content:
        """Return the member `members` gives that name.

        Raises:
            PhotoError: there is none, or the archive cannot be read.
        """
        ...


@dataclass(frozen=True)
class Slice:
    """Bytes within a file.

    Attributes:
        store: the file.
        parts: offset and size of each piece.
        mtime_ns: of the file when it was looked through.
        glue: what belongs between the pieces.
        skip: bytes at the beginning, of all pieces joined, that do not belong to the photo.
    """

    store: Store
    parts: tuple[tuple[int, int], ...]
    mtime_ns: int
    glue: bytes = b""
    skip: int = 0

    def state(self) -> FileState:
        """Return the slice's size and the file's time, without looking at it again."""
        size = sum(size for _, size in self.parts) + len(self.glue) * (len(self.parts) - 1)
        return FileState(size - self.skip, self.mtime_ns)

    def read(self) -> tuple[bytes, FileState]:
        """Return the bytes."""
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
    """A member of an archive that is looked up when it is needed."""

    archive: Archive
    member: str

    def state(self) -> FileState:
        """Return the member's state."""
        return self.archive.find(self.member).state()

    def read(self) -> tuple[bytes, FileState]:
        """Return the member's bytes and state."""
        return self.archive.find(self.member).read()


@dataclass(frozen=True)
class Failed:
    """An archive, or what is left of it, that cannot be used."""

    store: Store
    error: PhotoError

    def state(self) -> FileState:
        """Return the archive's state."""
        return self.store.state()

    def read(self) -> tuple[bytes, FileState]:
        """Raise what is wrong."""
        raise self.error
