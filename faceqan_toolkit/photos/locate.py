"""Photos by the `root` and `path` of their records."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from faceqan_toolkit.errors import PhotoError, Unreachable
from faceqan_toolkit.files import is_file
from faceqan_toolkit.paths import path_from_text
from faceqan_toolkit.photos.archives import ARCHIVE_EXTENSIONS, open_archive
from faceqan_toolkit.photos.members import Inside
from faceqan_toolkit.photos.remote import RemoteFile, is_url
from faceqan_toolkit.photos.stores import LocalFile, Store, extension
from faceqan_toolkit.types import Content, FileState, PhotoSource


def locate(root: str, path: str, faces: frozenset[int] | None = None) -> PhotoSource:
    """Return the photo at a record's `root` and `path`; it need not exist.

    Args:
        root: folder or URL.
        path: path below the root, possibly inside an archive.
        faces: indices of the wanted faces; None means all.
    """
    return PhotoSource(root, path, _content(path_from_text(root), path_from_text(path)), faces)


def locate_recorded(
    root: str, path: str, faces: frozenset[int] | None = None, *, fetch: bool = False
) -> PhotoSource:
    """Return the photo of a run folder's record, see `locate`.

    Run folders are untrusted, so photos on other machines cannot be read without `fetch`.

    Args:
        root, path, faces: see `locate`.
        fetch: allow reading from URLs.
    """
    if is_elsewhere(root) and not fetch:
        return PhotoSource(root, path, Unfetched(path_from_text(root)), faces)
    return locate(root, path, faces)


@lru_cache(64)
def is_elsewhere(root: str) -> bool:
    """Tell whether a root is on another machine: a URL, or on Windows a share."""
    root = path_from_text(root)
    return is_url(root) or (os.name == "nt" and root.startswith(("//", "\\\\")))


@dataclass(frozen=True)
class Unfetched:
    """A photo on another machine, without permission to fetch it."""

    root: str

    def state(self) -> FileState:
        """Raise Unreachable."""
        raise Unreachable(f"it is on another machine, at {self.root}; --fetch reads it there")

    def read(self) -> tuple[bytes, FileState]:
        """Raise Unreachable."""
        raise Unreachable(f"it is on another machine, at {self.root}; --fetch reads it there")


def store_at(root: str, path: str) -> Store:
    """Return the file at a root and path without percent-encoding."""
    if is_url(root):
        return RemoteFile(f"{root.rstrip('/')}/{path}")
    return LocalFile(Path(root) / path)


def is_there(source: PhotoSource) -> bool:
    """Tell whether a photo exists and can be accessed."""
    try:
        source.content.state()
    except PhotoError:
        return False
    return True


def _content(root: str, path: str) -> Content:
    parts = path.split("/")
    for index, part in enumerate(parts[:-1], 1):
        if extension(part) in ARCHIVE_EXTENSIONS:
            store = store_at(root, "/".join(parts[:index]))
            # folders may have such names
            if not isinstance(store, LocalFile) or is_file(store.file):
                return Inside(open_archive(store), "/".join(parts[index:]))
    return store_at(root, path)
