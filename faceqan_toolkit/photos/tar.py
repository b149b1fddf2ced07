"""Tar files, including WebDataset shards; members are read in place."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby, islice
from typing import Any, BinaryIO

from faceqan_toolkit.errors import MissingPhoto, PhotoError, UnreadablePhoto
from faceqan_toolkit.files import parse_json
from faceqan_toolkit.photos.archives import LABEL_NAMES, Names, Slice, is_hidden, label_folder
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS, Store, extension
from faceqan_toolkit.types import FileState

BLOCK = tarfile.BLOCKSIZE
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
SAMPLE_FILES = 64
"""Most files of a sample that are searched for its label; bounds the memory."""
LABEL_BYTES = {".cls": 32, ".json": 1 << 16}
"""Most bytes of the files that hold a sample's label, by extension; the first label counts."""


@dataclass(frozen=True)
class TarArchive:
    """The photos in a tar file, see `archives.Archive`: regular members with a photo's extension.

    Headers are read once in file order, contents on demand. With `labels`, photos of WebDataset
    samples are in folders named after their labels.
    """

    store: Store
    labels: bool = True

    def members(self) -> Iterator[tuple[str, Slice]]:
        """Yield names and contents in file order."""
        state, names = self.store.state(), Names()
        damage: list[str] = []
        for info, folder in self._in_folders(state.size, damage):
            if extension(info.name) not in PHOTO_EXTENSIONS or is_hidden(info.name):
                continue
            name = folder + info.name
            if not info.isreg() or info.sparse is not None:
                names.leave_out(name, "that are links or no plain files")
            elif names.take(name):
                yield name, Slice(self.store, ((info.offset_data, info.size),), state.mtime_ns)
        names.finish("".join(damage))

    def find(self, name: str) -> Slice:
        """Return a member, by its name with or without the folder of its label."""
        state = self.store.state()
        for archive in (self, TarArchive(self.store, labels=False)):
            if place := _index(archive, state).get(name):
                return Slice(self.store, (place,), state.mtime_ns)
        raise MissingPhoto(f"not in {self.store.name}")

    def _in_folders(self, size: int, damage: list[str]) -> Iterator[tuple[tarfile.TarInfo, str]]:
        """Yield members, each with the folder of its sample's label, or "".

        As in WebDataset, adjacent files of one key are a sample.
        """
        for _, sample in groupby(self._members(size, damage), lambda member: _key(member[0].name)):
            first = list(islice(sample, SAMPLE_FILES))
            labels = {extension(info.name): label for info, label in reversed(first) if label}
            folder = next((labels[kind] for kind in LABEL_BYTES if kind in labels), "")
            yield from ((info, folder) for info, _ in chain(first, sample))

    def _members(self, size: int, damage: list[str]) -> Iterator[tuple[tarfile.TarInfo, str]]:
        """Yield the readable members, each with the folder of the label in it, or "".

        `damage` receives a description of what stopped that.
        """
        try:
            with self.store.open() as file:
                for info in _headers(file, size):
                    info.name = info.name.removeprefix("./")
                    yield info, _label(file, info) if self.labels else ""
        except UnreadablePhoto as error:
            damage.append(error.reason)


def _key(name: str) -> str:
    """Return the key of a file's sample: its path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _label(file: BinaryIO, info: tarfile.TarInfo) -> str:
    """Return the folder of the label in a `.cls` or `.json` file; "" without a label."""
    kind = extension(info.name)
    if not info.isreg() or info.size > LABEL_BYTES.get(kind, -1):
        return ""
    file.seek(info.offset_data)
    text = file.read(info.size)
    if kind == ".json":
        return label_folder(_named_label(text))
    return label_folder(int(text)) if re.fullmatch(rb"\s*-?[0-9]{1,18}\s*", text) else ""


def _named_label(text: bytes) -> int | str | None:
    """Return the label in a sample's JSON, an integer or a name; None without one."""
    content: Any = None
    with suppress(ValueError):
        content = parse_json(text)
    for name in LABEL_NAMES if isinstance(content, dict) else ():
        label = content.get(name)
        if isinstance(label, float) and label.is_integer():
            return int(label)
        if isinstance(label, int | str) and not isinstance(label, bool) and label != "":
            return label
    return None


def _headers(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the readable headers, between which the caller may seek; then report any damage."""
    start = file.read(2)
    if start in COMPRESSED:
        raise UnreadablePhoto(
            f"a tar compressed by {COMPRESSED[start]}, which cannot be read in places; "
            "unpack it to a plain tar"
        )
    file.seek(0)
    try:
        # tarfile handles all header formats and long names
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                vars(tar)["members"].clear()  # tarfile would keep all members in memory
                if info.size < 0:
                    raise UnreadablePhoto("damaged: a member of negative size")
                if info.isreg() and info.offset_data + info.size > size:
                    raise UnreadablePhoto("cut off in the middle of a member")
                yield info
            end = tar.offset
    except PhotoError:
        raise
    except Exception as error:  # tarfile raises various errors on damaged files
        raise UnreadablePhoto(f"not a tar file, or damaged: {error}") from error
    file.seek(end)
    rest = file.read(BLOCK)
    if rest.strip(b"\0"):
        raise UnreadablePhoto(f"damaged at byte {end:,}")


@lru_cache(8)
def _index(archive: TarArchive, _state: FileState) -> dict[str, tuple[int, int]]:
    """Return offset and size of the readable members by name."""
    found = {}
    with suppress(PhotoError):
        for name, content in archive.members():
            found[name] = content.parts[0]
    return found
