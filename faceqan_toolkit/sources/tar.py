"""Tar files, WebDataset's shards among them: members are read in place, nothing is unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from faceqan_toolkit.errors import MissingPhoto, PhotoError, UnreadablePhoto
from faceqan_toolkit.sources.base import Slice, Store
from faceqan_toolkit.sources.names import PHOTO_EXTENSIONS, Names, extension, is_hidden
from faceqan_toolkit.types import FileState

BLOCK = tarfile.BLOCKSIZE
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class TarArchive:
    """The photos in a tar file, see `base.Archive`: regular members with a photo's extension.

    Headers are read once from beginning to end, contents when they are wanted.
    """

    store: Store

    def members(self) -> Iterator[tuple[str, Slice]]:
        """Yield names and contents in the order of the file."""
        state, names = self.store.state(), Names()
        damage = ""
        try:
            for info in self._headers(state.size):
                name = info.name.removeprefix("./")
                if extension(name) not in PHOTO_EXTENSIONS or is_hidden(name):
                    continue
                if not info.isreg() or info.sparse is not None:
                    names.leave_out(name, "that are links or no plain files")
                elif names.take(name):
                    parts = ((info.offset_data, info.size),)
                    yield name, Slice(self.store, parts, state.mtime_ns)
        except UnreadablePhoto as error:
            damage = error.reason
        names.finish(damage)

    def find(self, name: str) -> Slice:
        """Return a member."""
        state = self.store.state()
        place = _index(self, state).get(name)
        if place is None:
            raise MissingPhoto(f"not in {self.store.name}")
        return Slice(self.store, (place,), state.mtime_ns)

    def _headers(self, size: int) -> Iterator[tarfile.TarInfo]:
        """Yield what is good.

        Raises:
            UnreadablePhoto: it is damaged behind that.
        """
        with self.store.open() as file:
            start = file.read(2)
            if start in COMPRESSED:
                raise UnreadablePhoto(
                    f"a tar compressed by {COMPRESSED[start]}, which cannot be read in places; "
                    "unpack it to a plain tar"
                )
            file.seek(0)
            try:
                # of all in the file: names of any length, their order, no more than one header
                with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
                    while (info := tar.next()) is not None:
                        vars(tar)["members"].clear()  # it would keep them all
                        if info.size < 0:
                            raise UnreadablePhoto("damaged: a member of negative size")
                        if info.isreg() and info.offset_data + info.size > size:
                            raise UnreadablePhoto("cut off in the middle of a member")
                        yield info
                    end = tar.offset
            except PhotoError:
                raise
            except Exception as error:  # damaged files raise anything
                raise UnreadablePhoto(f"not a tar file, or damaged: {error}") from error
            file.seek(end)
            rest = file.read(BLOCK)
            if rest.strip(b"\0"):
                raise UnreadablePhoto(f"damaged at byte {end:,}")


@lru_cache(8)
def _index(archive: TarArchive, _state: FileState) -> dict[str, tuple[int, int]]:
    """Return offset and size by name; what is damaged is not in it."""
    found = {}
    try:
        for name, content in archive.members():
            found[name] = content.parts[0]
    except PhotoError:
        pass
    return found
