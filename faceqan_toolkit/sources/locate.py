"""A photo of a run, found again by what its records say of it."""

from __future__ import annotations

from pathlib import Path

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.paths import path_from_text
from faceqan_toolkit.sources.archives import ARCHIVE_EXTENSIONS, open_archive
from faceqan_toolkit.sources.base import Inside, Store
from faceqan_toolkit.sources.local import LocalFile
from faceqan_toolkit.sources.names import extension
from faceqan_toolkit.sources.remote import RemoteFile, is_url
from faceqan_toolkit.types import Content, PhotoSource


def locate(root: str, path: str, faces: frozenset[int] | None = None) -> PhotoSource:
    """Return the photo that a record's `root` and `path` name, whether it is there or not.

    Args:
        root: of the record: a folder, or a URL.
        path: of the record; part of it may lie inside an archive.
        faces: the faces that are wanted; None means all.
    """
    return PhotoSource(root, path, _content(path_from_text(root), path_from_text(path)), faces)


def store_at(root: str, path: str) -> Store:
    """Return the file at a place, not percent-encoded."""
    if is_url(root):
        return RemoteFile(f"{root.rstrip('/')}/{path}")
    return LocalFile(Path(root) / path)


def is_there(source: PhotoSource) -> bool:
    """Tell whether a photo can be looked at."""
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
            if not isinstance(store, LocalFile) or store.file.is_file():
                return Inside(open_archive(store), "/".join(parts[index:]))
    return store_at(root, path)
