"""Members of archives: their names, and where their bytes are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from faceqan_toolkit.errors import PhotoError, UnreadablePhoto
from faceqan_toolkit.photos.stores import Store, check_size
from faceqan_toolkit.types import Content, FileState

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
    """A photo that cannot be read; or an archive, `store`, that cannot be read to its end."""

    error: PhotoError
    store: Store | None = None

    def state(self) -> FileState:
        """Return the archive's state; raise the error if there is none."""
        if self.store is None:
            raise self.error
        return self.store.state()

    def read(self) -> tuple[bytes, FileState]:
        """Raise the error."""
        raise self.error


def told_extension(start: bytes) -> str:
    """Return the extension of an encoded photo from its first bytes."""
    return ".png" if start.startswith(b"\x89PNG") else ".jpg"


def label_folder(label: object) -> str:
    """Return the folder of a label, with its slash, unsafe characters percent-encoded.

    Examples:
        >>> label_folder(7), label_folder("ann/lee"), label_folder(".."), label_folder("")
        ('00007/', 'ann%2Flee/', '%2E%2E/', '')
    """
    if label is None or label == "":
        return ""
    if isinstance(label, int):
        return f"{label:05d}/"
    return f"{_NO_FOLDER_NAME.sub(_percent_encoded, str(label))}/"


_NO_FOLDER_NAME = re.compile(r"[/\\\0\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})|^\.{1,2}$")


def _percent_encoded(found: re.Match[str]) -> str:
    return "".join(f"%{ord(character):02X}" for character in found[0])


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
        safe = is_safe(name)
        if safe and is_new:
            self._taken += 1
        else:
            why = "whose names came before" if safe else "whose names lead out of it"
            self.leave_out(name, why)
        return safe and is_new

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
