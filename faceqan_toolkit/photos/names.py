"""Names of photos inside archives and stores: which are taken, and which might do harm."""

from __future__ import annotations

import re

from faceqan_toolkit.errors import UnreadablePhoto

PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("heic", "heif", "avif"),
    )
)
"""What a folder or a tar is searched for; a file given by name may have any extension."""
LABEL_NAMES = ("label", "identity", "subject", "person")
"""Columns of a table, or keys of a sample's JSON, that name a photo's label."""
BLOCK_BITS = 256


def extension(name: str) -> str:
    """Return a name's extension with its dot, lower case; "" if it has none."""
    head, dot, tail = name.rpartition("/")[2].rpartition(".")
    return f".{tail.lower()}" if dot and head else ""


def told_extension(start: bytes) -> str:
    """Return the extension of an encoded photo that has no name, by how it begins."""
    return ".png" if start.startswith(b"\x89PNG") else ".jpg"


def label_folder(label: object) -> str:
    """Return a label as one folder with its slash; "" for no label.

    Whole numbers have at least five digits. Characters that would make several folders of a label,
    or an unsafe one, are percent-encoded.

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
    """Tell whether a relative name stays where it belongs, on every system."""
    return (
        bool(name)
        and not any(character in name for character in "\0\\")
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


def is_hidden(name: str) -> bool:
    """Tell whether a folder is searched without such a file, or without a folder on its way."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


class Numbers:
    """A set of whole numbers: a bit or so each where they are dense, an entry each at worst."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """Add a number of at least 0; tell whether it is new."""
        block, place = divmod(number, BLOCK_BITS)
        bits = self._blocks.get(block, 0)
        if bits >> place & 1:
            return False
        self._blocks[block] = bits | 1 << place
        return True


class Names:
    """The names of one archive's members as they are read; says at the end what was left out."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._keys = Numbers()
        self._taken = 0
        self._left_out: dict[str, tuple[int, str]] = {}

    def take(self, name: str, key: int | None = None) -> bool:
        """Tell whether a member is taken: its name is safe, and the first of its kind.

        Args:
            name: of the member.
            key: what tells members apart in an archive that numbers them; its names are not kept.
        """
        if not is_safe(name):
            self.leave_out(name, "whose names lead out of it")
        elif not self._is_new(name, key):
            self.leave_out(name, "whose names came before")
        else:
            self._taken += 1
            return True
        return False

    def _is_new(self, name: str, key: int | None) -> bool:
        if key is not None:
            return self._keys.add(key)
        if name in self._names:
            return False
        self._names.add(name)
        return True

    def leave_out(self, name: str, why: str) -> None:
        """Note a member that is not taken."""
        count, first = self._left_out.get(why, (0, name))
        self._left_out[why] = (count + 1, first)

    def finish(self, damage: str = "") -> None:
        """Say what is wrong with the archive, if anything is.

        Raises:
            UnreadablePhoto: members were left out, it is damaged, or it holds no photos.
        """
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
